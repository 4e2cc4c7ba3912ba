/* ledger_read.c: what a ledger tells: days and what was saved, lines, pairs for fine-tuning. */
#include <stdlib.h>
#include <string.h>

#include "ledger_sql.h"

/* ---- the report ------------------------------------------------------------------------------------------------- */

/* Sums over a day. The last five are over answered requests whose costs are known: those that can be compared. */
typedef struct ledger_sums {
    double booked, all_remote; /* nano-dollars */
    double n, remote_requests;
    double quality_n, quality_all, quality_ours; /* requests with a calibrated confidence, and sums of P(right) */
} ledger_sums;

static const char ledger_days_sql[] =
    "WITH l AS (SELECT *, settled AND status = 'ok' AS answered,"
    "  coalesce(settled AND status = 'ok' AND cost_known AND all_remote IS NOT NULL, 0) AS comparable,"
    /* Of version 1 nobody knows more than whether the remote was asked for an answer. */
    "  coalesce(remote_calls, remote_attempts > 0, 0) AS calls, coalesce(remote_verdicts, 0) AS verdicts,"
    "  coalesce(remote_calls - remote_verdicts, remote_attempts, 0) > 0 AS called,"
    "  coalesce(calibrated AND score IS NOT NULL, 0) AS judged FROM line WHERE time > ?)"
    "SELECT date(time, 'unixepoch') AS day, sum(settled),"
    " total(answered AND route = 'local' AND reason <> 'cached'), total(answered AND route = 'remote' AND reason <> "
    "'cached'), total(answered AND reason = 'cached'), total(settled AND status <> 'ok'),"
    " total(private), total(answered AND degraded), total(over_budget), total(NOT settled), total(called),"
    " total(calls), total(verdicts),"
    " total(local_out), total(remote_out), total(settled AND NOT comparable), total(booked),"
    " total(CASE WHEN comparable THEN booked END), total(CASE WHEN comparable THEN all_remote END),"
    " total(comparable), total(comparable AND called), total(comparable AND judged),"
    " total(CASE WHEN comparable AND judged THEN score END),"
    " total(CASE WHEN comparable AND judged THEN CASE WHEN route = 'remote' THEN 1 ELSE score END END)"
    " FROM l GROUP BY day ORDER BY day";

static uint64_t ledger_count(sqlite3_stmt *s, int column) {
    return (uint64_t)sqlite3_column_double(s, column);
}

static void ledger_read_day(sqlite3_stmt *s, minim_ledger_day *day, ledger_sums *sums) {
    const char *date = (const char *)sqlite3_column_text(s, 0);
    memset(day, 0, sizeof *day);
    day->size = sizeof *day;
    router_line(day->day, sizeof day->day, "%s", date ? date : "");
    uint64_t *const counts[] = {
        &day->requests,         &day->local,           &day->remote,       &day->cached,        &day->failed,
        &day->private_requests, &day->degraded,        &day->over_budget,  &day->unsettled,     &day->remote_requests,
        &day->remote_calls,     &day->remote_verdicts, &day->local_tokens, &day->remote_tokens, &day->unknown_costs};
    const int n = (int)(sizeof counts / sizeof *counts);
    for (int i = 0; i < n; i++) *counts[i] = ledger_count(s, i + 1);
    day->cost = sqlite3_column_double(s, n + 1) * 1e-9;
    double *const reals[] = {&sums->booked,    &sums->all_remote,  &sums->n,           &sums->remote_requests,
                             &sums->quality_n, &sums->quality_all, &sums->quality_ours};
    for (int i = 0; i < 7; i++) *reals[i] = sqlite3_column_double(s, i + n + 2);
}

/* What the sums come to. */
static void ledger_compare(minim_ledger_day *day, const ledger_sums *sums) {
    day->compared_cost = sums->booked * 1e-9;
    day->all_remote = sums->all_remote * 1e-9;
    if (!sums->n) return;
    day->random_same_share = day->all_remote * sums->remote_requests / sums->n;
    /* Random answers a share c remotely: quality (1 - c) mean(P) + c. */
    double mean = sums->quality_all / sums->n, ours = sums->quality_ours / sums->n;
    day->has_quality = sums->quality_n == sums->n && mean < 1;
    if (day->has_quality) day->random_same_quality = day->all_remote * (ours - mean) / (1 - mean);
}

static void ledger_add_day(minim_ledger_day *total, ledger_sums *total_sums, const minim_ledger_day *day,
                           const ledger_sums *sums) {
    total->requests += day->requests;
    total->local += day->local;
    total->remote += day->remote;
    total->cached += day->cached;
    total->failed += day->failed;
    total->private_requests += day->private_requests;
    total->degraded += day->degraded;
    total->over_budget += day->over_budget;
    total->unsettled += day->unsettled;
    total->remote_requests += day->remote_requests;
    total->remote_calls += day->remote_calls;
    total->remote_verdicts += day->remote_verdicts;
    total->local_tokens += day->local_tokens;
    total->remote_tokens += day->remote_tokens;
    total->unknown_costs += day->unknown_costs;
    total->cost += day->cost;
    total_sums->booked += sums->booked;
    total_sums->all_remote += sums->all_remote;
    total_sums->n += sums->n;
    total_sums->remote_requests += sums->remote_requests;
    total_sums->quality_n += sums->quality_n;
    total_sums->quality_all += sums->quality_all;
    total_sums->quality_ours += sums->quality_ours;
}

minim_status minim_ledger_report(minim_ledger *head, double since, minim_ledger_day **days, size_t *n_days,
                                 minim_error *error) {
    ledger_sql *ledger = (ledger_sql *)head;
    if (!ledger || !days || !n_days) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_ledger_report: an argument is NULL");
    }
    minim_ledger_day total = {.size = sizeof total, .day = "total"}, *list = NULL;
    ledger_sums total_sums = {0};
    size_t n = 0;
    sqlite3_stmt *s = NULL;
    minim_status status = MINIM_OK;
    pthread_mutex_lock(&ledger->lock);
    int code = sqlite3_prepare_v2(ledger->db, ledger_days_sql, -1, &s, NULL);
    if (code == SQLITE_OK) code = sqlite3_bind_double(s, 1, since);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        ledger_sums sums = {0};
        minim_ledger_day *more = realloc(list, (n + 2) * sizeof *list); /* and the total */
        if (!more) {
            status = router_fail_memory(error, "the ledger's report");
            break;
        }
        list = more;
        ledger_read_day(s, &list[n], &sums);
        ledger_compare(&list[n], &sums);
        ledger_add_day(&total, &total_sums, &list[n++], &sums);
        code = SQLITE_OK;
    }
    if (status == MINIM_OK && code != SQLITE_DONE) status = ledger_sql_fail(ledger, "it can not be read", error);
    sqlite3_finalize(s);
    pthread_mutex_unlock(&ledger->lock);
    if (status == MINIM_OK && !list) list = malloc(sizeof *list);
    if (status != MINIM_OK || !list) {
        free(list);
        return status != MINIM_OK ? status : router_fail_memory(error, "the ledger's report");
    }
    ledger_compare(&total, &total_sums);
    list[n] = total;
    *days = list;
    *n_days = n + 1;
    return MINIM_OK;
}

void minim_ledger_days_free(minim_ledger_day *days) {
    free(days);
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

/* A JSON object a row; what is not known is left out of nothing: it is null. */
static const char *const ledger_views[] = {
    [MINIM_LEDGER_LINES] =
        "SELECT json_object('id', id, 'time', strftime('%Y-%m-%dT%H:%M:%fZ', time, 'unixepoch'),"
        " 'gen_ai.operation.name', 'chat', 'settled', json(iif(settled, 'true', 'false')), 'status', status, 'mode', "
        "mode,"
        " 'route', route, 'reason', reason, 'confidence_method', method, 'score', score, 'threshold', threshold,"
        " 'calibrated', json(iif(calibrated, 'true', 'false')), 'degraded', json(iif(degraded, 'true', 'false')),"
        " 'private', json(iif(private, 'true', 'false')), 'over_budget', json(iif(over_budget, 'true', 'false')),"
        " 'cache', cache, 'messages', messages, 'prompt_bytes', prompt_bytes, 'prompt_hash', prompt_hash,"
        " 'answer_bytes', answer_bytes, 'answer_hash', answer_hash, 'seconds', seconds,"
        " 'gen_ai.provider.name', iif(route = 'remote', remote_server, iif(route = 'local', 'minim', NULL)),"
        " 'gen_ai.request.model', iif(route = 'remote', remote_asked, local_model),"
        " 'gen_ai.response.model', iif(route = 'remote', remote_model, local_model),"
        " 'gen_ai.usage.input_tokens', iif(route = 'remote', remote_in, local_in),"
        " 'gen_ai.usage.output_tokens', iif(route = 'remote', remote_out, local_out),"
        " 'gen_ai.response.finish_reasons', json_array(finish), 'error.type', remote_failure,"
        " 'local_model', local_model, 'local_input_tokens', local_in, 'local_output_tokens', local_out,"
        " 'local_seconds', local_seconds, 'remote_model', remote_model, 'remote_input_tokens', remote_in,"
        " 'remote_output_tokens', remote_out, 'remote_estimated', json(iif(remote_estimated, 'true', 'false')),"
        " 'remote_seconds', remote_seconds, 'remote_server', remote_server, 'remote_calls', remote_calls,"
        " 'remote_verdicts', remote_verdicts, 'attempts', remote_attempts, 'http_status', remote_status,"
        " 'cost', iif(cost_known OR NOT settled, booked * 1e-9, NULL), 'all_remote_cost', all_remote * 1e-9)"
        " FROM line WHERE time > ? ORDER BY id",
    [MINIM_LEDGER_PAIRS] =
        "SELECT json_object('messages', json_insert(prompt, '$[#]', json_object('role', 'assistant', 'content', "
        "answer)))"
        " FROM line WHERE time > ? AND prompt IS NOT NULL AND answer IS NOT NULL AND settled AND status = 'ok'"
        " AND route = 'remote' AND reason <> 'cached' AND finish = 'stop' AND NOT private AND NOT degraded ORDER BY id",
    [MINIM_LEDGER_INPUTS] =
        "SELECT json_object('id', id, 'inputs', inputs, 'action', action, 'route', route, 'reason', reason)"
        " FROM line WHERE time > ? AND settled AND inputs IS NOT NULL ORDER BY id",
};

minim_status minim_ledger_read(minim_ledger *head, minim_ledger_view view, double since,
                               int (*on_line)(void *user, const char *json, size_t n_bytes), void *user,
                               minim_error *error) {
    ledger_sql *ledger = (ledger_sql *)head;
    if (!ledger || !on_line || (unsigned)view > MINIM_LEDGER_INPUTS) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_ledger_read: an argument is NULL or no view");
    }
    sqlite3_stmt *s = NULL;
    minim_status status = MINIM_OK;
    int stopped = 0;
    pthread_mutex_lock(&ledger->lock);
    int code = sqlite3_prepare_v2(ledger->db, ledger_views[view], -1, &s, NULL);
    if (code == SQLITE_OK) code = sqlite3_bind_double(s, 1, since);
    while (code == SQLITE_OK && !stopped && (code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *json = (const char *)sqlite3_column_text(s, 0);
        code = SQLITE_OK;
        if (json) stopped = on_line(user, json, (size_t)sqlite3_column_bytes(s, 0));
    }
    if (!stopped && code != SQLITE_DONE) status = ledger_sql_fail(ledger, "it can not be read", error);
    sqlite3_finalize(s);
    pthread_mutex_unlock(&ledger->lock);
    return stopped ? router_fail(error, MINIM_ERR_CANCELLED, "cancelled") : status;
}
