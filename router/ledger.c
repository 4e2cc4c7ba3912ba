/* ledger.c: the ledger in SQLite: opening, reservations, lines, cached answers. Reading it: ledger_read.c.
 *
 * A line is written in one transaction. In WAL mode with synchronous=NORMAL a committed transaction is in the file's
 * log when COMMIT returns, so that killing the process loses nothing; only a crash of the machine may lose the last
 * ones. Money is counted in whole nano-dollars, so that ten times a tenth is one. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ledger_sql.h"

enum { LEDGER_VERSION = 2, LEDGER_BUSY_MS = 30000 };

/* booked: what the budget counts, in nano-dollars; the reservation until settled = 1. all_remote: NULL = not known. */
static const char ledger_schema[] =
    "CREATE TABLE line(id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, settled INTEGER NOT NULL,"
    " booked INTEGER NOT NULL, all_remote INTEGER, cost_known INTEGER, status TEXT, mode TEXT, action INTEGER,"
    " route TEXT, reason TEXT, method TEXT, score REAL, threshold REAL, calibrated INTEGER, truncated INTEGER,"
    " degraded INTEGER, private INTEGER, over_budget INTEGER, cache TEXT, messages INTEGER, prompt_bytes INTEGER,"
    " prompt_hash TEXT, answer_bytes INTEGER, answer_hash TEXT, seconds REAL, finish TEXT,"
    " local_model TEXT, local_in INTEGER, local_out INTEGER, local_seconds REAL,"
    " remote_model TEXT, remote_in INTEGER, remote_out INTEGER, remote_estimated INTEGER, remote_seconds REAL,"
    " remote_attempts INTEGER, remote_status INTEGER, remote_failure TEXT,"
    " inputs TEXT, prompt TEXT, answer TEXT,"
    " remote_calls INTEGER, remote_verdicts INTEGER, remote_server TEXT, remote_asked TEXT);"
    "CREATE INDEX line_time ON line(time);"
    "CREATE INDEX line_booked ON line(time, booked) WHERE booked > 0;"
    "CREATE TABLE cache(key BLOB PRIMARY KEY, time REAL NOT NULL, route INTEGER, finish INTEGER, model TEXT,"
    " prompt_tokens INTEGER, completion_tokens INTEGER, answer TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX cache_time ON cache(time);"
    "CREATE TABLE salt(value BLOB NOT NULL);"
    "INSERT INTO salt VALUES(randomblob(32));"
    "PRAGMA user_version=2;";

/* A ledger of version 1 grows; its lines do not know the new columns. */
static const char ledger_upgrade[] = "ALTER TABLE line ADD COLUMN remote_calls INTEGER;"
                                     "ALTER TABLE line ADD COLUMN remote_verdicts INTEGER;"
                                     "ALTER TABLE line ADD COLUMN remote_server TEXT;"
                                     "ALTER TABLE line ADD COLUMN remote_asked TEXT;"
                                     "PRAGMA user_version=2;";

minim_status ledger_sql_fail(const ledger_sql *ledger, const char *what, minim_error *error) {
    int code = ledger->db ? sqlite3_errcode(ledger->db) : SQLITE_NOMEM;
    if (code == SQLITE_NOMEM) return router_fail_memory(error, "the ledger");
    return router_fail(error, MINIM_ERR_IO, "ledger %s: %s: %s", ledger->path, what, sqlite3_errmsg(ledger->db));
}

static double ledger_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Up, but not for what is only the rounding of a double. */
static int64_t ledger_nano(double dollars) {
    double nano = ceil(dollars * 1e9 - 1e-3);
    return !(nano > 0) ? 0 : nano > 4e18 ? (int64_t)4e18 : (int64_t)nano;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static int ledger_do(ledger_sql *ledger, const char *sql) {
    return sqlite3_exec(ledger->db, sql, NULL, NULL, NULL);
}

/* Ends what was begun: COMMIT when code is SQLITE_OK so far, else ROLLBACK. */
static int ledger_end(ledger_sql *ledger, int code) {
    if (code == SQLITE_OK) code = ledger_do(ledger, "COMMIT");
    if (code != SQLITE_OK && !sqlite3_get_autocommit(ledger->db)) ledger_do(ledger, "ROLLBACK");
    return code;
}

/* SQLite does not wait when two processes turn on the WAL at once. */
static int ledger_turn_on_wal(ledger_sql *ledger) {
    double end = router_now() + LEDGER_BUSY_MS / 1e3;
    int code;
    while ((code = ledger_do(ledger, "PRAGMA journal_mode=WAL")) == SQLITE_BUSY && router_now() < end) {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    return code == SQLITE_OK ? ledger_do(ledger, "PRAGMA synchronous=NORMAL") : code;
}

/* The one number that a statement gives; -1 when it gives none. */
static int ledger_number(ledger_sql *ledger, const char *sql) {
    sqlite3_stmt *s = NULL;
    int value = -1;
    if (sqlite3_prepare_v2(ledger->db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        value = sqlite3_column_int(s, 0);
    }
    sqlite3_finalize(s);
    return value;
}

static minim_status ledger_prepare_file(ledger_sql *ledger, minim_error *error) {
    if (ledger_turn_on_wal(ledger) != SQLITE_OK || ledger_do(ledger, "BEGIN IMMEDIATE") != SQLITE_OK) {
        return ledger_sql_fail(ledger, "it can not be used", error);
    }
    int version = ledger_number(ledger, "PRAGMA user_version");
    int tables = ledger_number(ledger, "SELECT count(*) FROM sqlite_schema");
    if (version != LEDGER_VERSION && version != 1 && (version || tables)) {
        ledger_do(ledger, "ROLLBACK");
        return router_fail(error, MINIM_ERR_FORMAT, "ledger %s: found %s, expected one of version %d", ledger->path,
                           version ? "another version" : "another program's database", LEDGER_VERSION);
    }
    int code = version == LEDGER_VERSION ? SQLITE_OK : ledger_do(ledger, version ? ledger_upgrade : ledger_schema);
    if (ledger_end(ledger, code) != SQLITE_OK) return ledger_sql_fail(ledger, "it can not be made", error);
    sqlite3_stmt *s = NULL;
    int n = 0;
    if (sqlite3_prepare_v2(ledger->db, "SELECT value FROM salt", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW && (n = sqlite3_column_bytes(s, 0)) == (int)sizeof ledger->head.salt) {
        memcpy(ledger->head.salt, sqlite3_column_blob(s, 0), sizeof ledger->head.salt);
    }
    sqlite3_finalize(s);
    if (n == (int)sizeof ledger->head.salt) return MINIM_OK;
    return router_fail(error, MINIM_ERR_FORMAT, "ledger %s: found a salt of %d bytes, expected 32", ledger->path, n);
}

/* ---- money ------------------------------------------------------------------------------------------------------ */

/* What was booked since then; -1 on failure. */
static int64_t ledger_booked(ledger_sql *ledger, double since) {
    sqlite3_stmt *s = NULL;
    int64_t sum = -1;
    if (sqlite3_prepare_v2(ledger->db, "SELECT total(booked) FROM line WHERE time > ? AND booked > 0", -1, &s, NULL) ==
            SQLITE_OK &&
        sqlite3_bind_double(s, 1, since) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        sum = sqlite3_column_int64(s, 0);
    }
    sqlite3_finalize(s);
    return sum;
}

/* A new reservation, or more for the one of a ticket. */
static int ledger_set_aside(ledger_sql *ledger, int64_t nano, int64_t ticket) {
    static const char insert[] = "INSERT INTO line(time, settled, booked) VALUES(?1, 0, ?2)",
                      update[] = "UPDATE line SET booked = booked + ?2 WHERE id = ?1 AND NOT settled";
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(ledger->db, ticket ? update : insert, -1, &s, NULL);
    if (code == SQLITE_OK) code = ticket ? sqlite3_bind_int64(s, 1, ticket) : sqlite3_bind_double(s, 1, ledger_now());
    if (code == SQLITE_OK) code = sqlite3_bind_int64(s, 2, nano);
    if (code == SQLITE_OK) code = sqlite3_step(s) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
    sqlite3_finalize(s);
    return code;
}

static minim_status ledger_reserve(minim_ledger *head, double dollars, double max_budget, double since, int64_t *ticket,
                                   minim_error *error) {
    ledger_sql *ledger = (ledger_sql *)head;
    int64_t nano = ledger_nano(dollars), limit = ledger_nano(max_budget), booked = 0;
    minim_status status = MINIM_OK;
    pthread_mutex_lock(&ledger->lock);
    int code = ledger_do(ledger, "BEGIN IMMEDIATE");
    if (code == SQLITE_OK && nano && max_budget >= 0) booked = ledger_booked(ledger, since);
    if (code != SQLITE_OK || booked < 0) {
        status = ledger_sql_fail(ledger, "nothing can be set aside", error);
    } else if (nano && max_budget >= 0 && (booked > limit || nano > limit - booked)) {
        status = router_fail(error, MINIM_ERR_SPACE, "over budget: a call may cost $%.6g, $%.6g of $%.6g are left",
                             dollars, booked > limit ? 0 : (double)(limit - booked) * 1e-9, max_budget);
    } else {
        code = ledger_set_aside(ledger, nano, *ticket);
        if (!*ticket) *ticket = sqlite3_last_insert_rowid(ledger->db);
        if (ledger_end(ledger, code) != SQLITE_OK) status = ledger_sql_fail(ledger, "nothing can be set aside", error);
    }
    if (!sqlite3_get_autocommit(ledger->db)) ledger_do(ledger, "ROLLBACK");
    pthread_mutex_unlock(&ledger->lock);
    return status;
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

/* The columns of a settled line, in the order that ledger_bind_line() fills them. */
#define LEDGER_COLUMNS                                                                                                 \
    "settled, booked, all_remote, cost_known, status, mode, action, route, reason, method, score, threshold, "         \
    "calibrated, truncated, degraded, private, over_budget, cache, messages, prompt_bytes, prompt_hash, "              \
    "answer_bytes, answer_hash, seconds, finish, local_model, local_in, local_out, local_seconds, remote_model, "      \
    "remote_in, remote_out, remote_estimated, remote_seconds, remote_attempts, remote_status, remote_failure, "        \
    "inputs, prompt, answer, remote_calls, remote_verdicts, remote_server, remote_asked, time, id"

/* Binds values one behind the other; the first failure stays. NULL text and absent numbers become NULL. */
typedef struct ledger_binder {
    sqlite3_stmt *s;
    int n, code;
} ledger_binder;

static void ledger_bind_integer(ledger_binder *b, int present, int64_t value) {
    b->n++;
    int code = present ? sqlite3_bind_int64(b->s, b->n, value) : sqlite3_bind_null(b->s, b->n);
    if (b->code == SQLITE_OK) b->code = code;
}

static void ledger_bind_real(ledger_binder *b, int present, double value) {
    b->n++;
    int code = present ? sqlite3_bind_double(b->s, b->n, value) : sqlite3_bind_null(b->s, b->n);
    if (b->code == SQLITE_OK) b->code = code;
}

static void ledger_bind_text(ledger_binder *b, const char *text) {
    b->n++;
    int code = text && text[0] ? sqlite3_bind_text64(b->s, b->n, text, strlen(text), SQLITE_STATIC, SQLITE_UTF8)
                               : sqlite3_bind_null(b->s, b->n);
    if (b->code == SQLITE_OK) b->code = code;
}

static void ledger_bind_side(ledger_binder *b, const minim_router_reply *side) {
    static const minim_router_reply nobody;
    const minim_router_reply *reply = side ? side : &nobody;
    ledger_bind_text(b, reply->model);
    ledger_bind_integer(b, side != NULL, (int64_t)reply->usage.prompt_tokens);
    ledger_bind_integer(b, side != NULL, (int64_t)reply->usage.completion_tokens);
}

static void ledger_bind_line(ledger_binder *b, const ledger_line *line) {
    const minim_route_decision *d = line->decision;
    const minim_router_reply *remote = line->remote;
    int answered = line->status == MINIM_OK && d->action == MINIM_ROUTE_ANSWER;
    const minim_router_reply *by = d->route == MINIM_ROUTE_LOCAL ? line->local : remote;
    ledger_bind_integer(b, 1, 1);
    ledger_bind_integer(b, 1, d->cost_known ? ledger_nano(d->cost) : 0);
    ledger_bind_integer(b, d->all_remote_known, ledger_nano(d->all_remote_cost));
    ledger_bind_integer(b, 1, d->cost_known);
    ledger_bind_text(b, minim_status_name(line->status));
    ledger_bind_text(b, minim_route_mode_name(line->mode));
    ledger_bind_integer(b, 1, (int64_t)d->action);
    ledger_bind_text(b, answered ? minim_route_name(d->route) : NULL);
    ledger_bind_text(b, minim_route_reason_name(d->reason));
    ledger_bind_text(b, minim_route_method_name(d->method));
    /* Where there is a confidence that is the score that counts; the raw one is among the inputs. */
    ledger_bind_real(b, d->has_score, d->has_confidence ? d->confidence : d->score);
    ledger_bind_real(b, 1, d->threshold);
    ledger_bind_integer(b, 1, d->has_confidence);
    ledger_bind_integer(b, 1, d->truncated);
    ledger_bind_integer(b, 1, d->degraded);
    ledger_bind_integer(b, 1, line->is_private);
    ledger_bind_integer(b, 1, line->over_budget);
    ledger_bind_text(b, line->cache);
    ledger_bind_integer(b, 1, (int64_t)line->n_messages);
    ledger_bind_integer(b, 1, (int64_t)line->prompt_bytes);
    ledger_bind_text(b, line->prompt_hash);
    ledger_bind_integer(b, answered, (int64_t)line->answer_bytes);
    ledger_bind_text(b, line->answer_hash);
    ledger_bind_real(b, 1, d->seconds);
    ledger_bind_text(b, answered && by ? minim_route_finish_name(by->finish) : NULL);
    ledger_bind_side(b, line->local);
    ledger_bind_real(b, line->local != NULL, line->local ? line->local->usage.seconds : 0);
    ledger_bind_side(b, remote);
    ledger_bind_integer(b, remote != NULL, remote ? remote->usage.estimated : 0);
    ledger_bind_real(b, remote != NULL, remote ? remote->usage.seconds : 0);
    ledger_bind_integer(b, remote != NULL, remote ? remote->attempts : 0);
    ledger_bind_integer(b, remote && remote->http_status, remote ? remote->http_status : 0);
    ledger_bind_text(b, remote && remote->failure ? minim_route_failure_name(remote->failure) : NULL);
    ledger_bind_text(b, line->inputs);
    ledger_bind_text(b, line->prompt);
    ledger_bind_text(b, line->answer);
    ledger_bind_integer(b, 1, (int64_t)line->remote_calls);
    ledger_bind_integer(b, 1, (int64_t)line->remote_verdicts);
    ledger_bind_text(b, remote ? remote->server : NULL);
    ledger_bind_text(b, remote ? remote->asked : NULL);
}

static minim_status ledger_settle(minim_ledger *head, int64_t ticket, const ledger_line *line, minim_error *error) {
    static const char insert[] =
        "INSERT OR REPLACE INTO line(" LEDGER_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
        "?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
        "coalesce((SELECT time FROM line WHERE id = ?46), ?45), ?46)";
    ledger_sql *ledger = (ledger_sql *)head;
    pthread_mutex_lock(&ledger->lock);
    ledger_binder b = {NULL, 0, sqlite3_prepare_v2(ledger->db, insert, -1, &b.s, NULL)};
    if (b.code == SQLITE_OK) {
        ledger_bind_line(&b, line);
        ledger_bind_real(&b, 1, ledger_now());
        ledger_bind_integer(&b, ticket != 0, ticket);
        if (b.code == SQLITE_OK && sqlite3_step(b.s) != SQLITE_DONE) b.code = SQLITE_ERROR;
    }
    minim_status status = b.code == SQLITE_OK ? MINIM_OK : ledger_sql_fail(ledger, "the line is not booked", error);
    sqlite3_finalize(b.s);
    pthread_mutex_unlock(&ledger->lock);
    return status;
}

/* ---- cached answers --------------------------------------------------------------------------------------------- */

static minim_status ledger_cache_get(minim_ledger *head, const uint8_t key[32], double max_age, ledger_cached *cached,
                                     minim_error *error) {
    static const char select[] =
        "SELECT route, finish, model, prompt_tokens, completion_tokens, answer FROM cache WHERE key = ? AND time > ?";
    ledger_sql *ledger = (ledger_sql *)head;
    sqlite3_stmt *s = NULL;
    minim_status status = MINIM_OK;
    pthread_mutex_lock(&ledger->lock);
    int code = sqlite3_prepare_v2(ledger->db, select, -1, &s, NULL);
    if (code == SQLITE_OK) code = sqlite3_bind_blob(s, 1, key, 32, SQLITE_STATIC);
    if (code == SQLITE_OK) code = sqlite3_bind_double(s, 2, ledger_now() - max_age);
    if (code == SQLITE_OK) code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        const char *model = (const char *)sqlite3_column_text(s, 2), *answer = (const char *)sqlite3_column_text(s, 5);
        cached->route = sqlite3_column_int(s, 0) == MINIM_ROUTE_REMOTE ? MINIM_ROUTE_REMOTE : MINIM_ROUTE_LOCAL;
        cached->finish = (minim_route_finish)sqlite3_column_int(s, 1);
        cached->usage.prompt_tokens = (uint64_t)sqlite3_column_int64(s, 3);
        cached->usage.completion_tokens = (uint64_t)sqlite3_column_int64(s, 4);
        router_line(cached->model, sizeof cached->model, "%s", model ? model : "");
        if (answer) status = router_utf8_append(&cached->text, answer, strlen(answer));
    } else if (code != SQLITE_DONE) {
        status = ledger_sql_fail(ledger, "the cache can not be read", error);
    }
    if (status == MINIM_ERR_SPACE)
        status = router_fail(error, status, "ledger %s: a cached answer too long", ledger->path);
    sqlite3_finalize(s);
    pthread_mutex_unlock(&ledger->lock);
    return status;
}

static minim_status ledger_cache_put(minim_ledger *head, const uint8_t key[32], double max_age,
                                     const ledger_cached *cached, minim_error *error) {
    static const char insert[] = "INSERT OR REPLACE INTO cache(key, time, route, finish, model, prompt_tokens, "
                                 "completion_tokens, answer) VALUES(?,?,?,?,?,?,?,?)";
    ledger_sql *ledger = (ledger_sql *)head;
    sqlite3_stmt *clean = NULL;
    double now = ledger_now();
    pthread_mutex_lock(&ledger->lock);
    ledger_binder b = {NULL, 1, sqlite3_prepare_v2(ledger->db, insert, -1, &b.s, NULL)};
    if (b.code == SQLITE_OK) {
        b.code = sqlite3_bind_blob(b.s, 1, key, 32, SQLITE_STATIC);
        ledger_bind_real(&b, 1, now);
        ledger_bind_integer(&b, 1, (int64_t)cached->route);
        ledger_bind_integer(&b, 1, (int64_t)cached->finish);
        ledger_bind_text(&b, cached->model);
        ledger_bind_integer(&b, 1, (int64_t)cached->usage.prompt_tokens);
        ledger_bind_integer(&b, 1, (int64_t)cached->usage.completion_tokens);
        ledger_bind_text(&b, cached->text.data);
        if (b.code == SQLITE_OK && sqlite3_step(b.s) != SQLITE_DONE) b.code = SQLITE_ERROR;
    }
    minim_status status = b.code == SQLITE_OK ? MINIM_OK : ledger_sql_fail(ledger, "the answer is not cached", error);
    sqlite3_finalize(b.s);
    /* What nobody may read any more goes; if not now, then next time. */
    if (sqlite3_prepare_v2(ledger->db, "DELETE FROM cache WHERE time <= ?", -1, &clean, NULL) == SQLITE_OK &&
        sqlite3_bind_double(clean, 1, now - max_age) == SQLITE_OK) {
        sqlite3_step(clean);
    }
    sqlite3_finalize(clean);
    pthread_mutex_unlock(&ledger->lock);
    return status;
}

/* ---- open and close --------------------------------------------------------------------------------------------- */

static const ledger_functions ledger_sql_functions = {ledger_reserve, ledger_settle, ledger_cache_get,
                                                      ledger_cache_put};

/* SQLite would make the file readable for everybody. It is made under another name and then linked: closing a file that
 * another thread has open as a database would take that one's locks away. */
static minim_status ledger_make_file(const char *path, minim_error *error) {
    char made[4096];
    if (!access(path, F_OK)) return MINIM_OK;
    if (strlen(path) + 8 > sizeof made) return router_fail(error, MINIM_ERR_IO, "ledger: the path is too long");
    snprintf(made, sizeof made, "%s.XXXXXX", path);
    int fd = mkstemp(made); /* mode 0600 */
    if (fd < 0) return router_fail(error, MINIM_ERR_IO, "ledger %s: %s", path, strerror(errno));
    close(fd);
    int failed = link(made, path) && errno != EEXIST ? errno : 0;
    unlink(made);
    return failed ? router_fail(error, MINIM_ERR_IO, "ledger %s: %s", path, strerror(failed)) : MINIM_OK;
}

minim_status minim_ledger_open(const char *path, minim_ledger **out, minim_error *error) {
    if (!path || !path[0] || !out) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_ledger_open: no path");
    ledger_sql *ledger = calloc(1, sizeof *ledger);
    if (!ledger || !(ledger->path = strdup(path))) {
        free(ledger);
        return router_fail_memory(error, "the ledger");
    }
    ledger->head.functions = &ledger_sql_functions;
    pthread_mutex_init(&ledger->lock, NULL);
    minim_status status = ledger_make_file(path, error);
    if (status == MINIM_OK &&
        sqlite3_open_v2(path, &ledger->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        status = ledger_sql_fail(ledger, "it can not be opened", error);
    }
    if (status == MINIM_OK) {
        sqlite3_busy_timeout(ledger->db, LEDGER_BUSY_MS);
        status = ledger_prepare_file(ledger, error);
    }
    if (status != MINIM_OK) {
        minim_ledger_close(&ledger->head);
        return status;
    }
    *out = &ledger->head;
    return MINIM_OK;
}

void minim_ledger_close(minim_ledger *head) {
    ledger_sql *ledger = (ledger_sql *)head;
    if (!ledger) return;
    sqlite3_close(ledger->db);
    pthread_mutex_destroy(&ledger->lock);
    free(ledger->path);
    free(ledger);
}
