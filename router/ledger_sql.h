/* ledger_sql.h: what the files of the SQLite ledger share. */
#ifndef ROUTER_LEDGER_SQL_H
#define ROUTER_LEDGER_SQL_H

#include <pthread.h>
#include <sqlite3.h>

#include "ledger.h"

typedef struct ledger_sql {
    minim_ledger head;
    sqlite3 *db;
    pthread_mutex_t lock; /* one statement at a time on this connection; other processes have their own */
    char *path;
} ledger_sql;

/* Sets the error from SQLite's own text. Returns MINIM_ERR_IO, or MINIM_ERR_MEMORY. */
minim_status ledger_sql_fail(const ledger_sql *ledger, const char *what, minim_error *error);

#endif
