/* test_router_config.c: minim.json, environment, flags, keys, addresses. Left out without the packages of
 * the router's remote (MINIM_WITH_ROUTER). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../router/key.h"
#include "../router/support.h"
#include "../router/url.h"
#include "router_test.h"

/* ---- configuration ---------------------------------------------------------------------------------------------- */

static char home[] = "/tmp/minim-test-router-XXXXXX", start[4096];

/* Tests that touch files and the environment begin in an empty folder with none of our variables. */
static int enter_empty_folder(void **state) {
    (void)state;
    static const char *const names[] = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "XDG_CONFIG_HOME",
                                        "TEST_KEY"};
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    strcpy(home + strlen(home) - 6, "XXXXXX");
    return !getcwd(start, sizeof start) || !mkdtemp(home) || setenv("HOME", home, 1) || chdir(home);
}

static int leave_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", home);
    return chdir(start) || system(command);
}

static void write_file(const char *path, const char *text, int mode) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, (mode_t)mode), 0);
}

static minim_status load_text(const char *text, minim_router_config *config, minim_error *error) {
    write_file("test.json", text, 0644);
    minim_router_config_default(config);
    return minim_router_config_load(config, "test.json", error);
}

static void a_configuration_file_is_read_whole(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error = {.text = ""};
    static const char text[] =
        "{\"mode\":\"prefer_in_cloud\",\"confidence_method\":\"avg_logprob\",\"threshold\":0.7,\"remote\":{\"base_"
        "url\":"
        "\"https://a.example/"
        "v1\",\"model\":\"m\",\"api_key\":\"env:TEST_KEY\",\"connect_timeout\":1,\"stream_timeout\":2.5,"
        "\"idle_timeout\":3,\"timeout\":4,\"num_retries\":5,\"retry_after\":0.25,\"input_cost_per_token\":1e-7,"
        "\"output_cost_per_token\":0,\"max_response_bytes\":2048,\"require_done\":false,\"stream\":false,\"max_tokens_"
        "field\":"
        "\"max_completion_tokens\"}}";
    if (load_text(text, &c, &error)) fail_msg("%s", error.text);
    assert_int_equal(c.mode, MINIM_ROUTE_MODE_REMOTE);
    assert_true(c.threshold == 0.7 && c.connect_timeout == 1 && c.stream_timeout == 2.5 && c.idle_timeout == 3);
    assert_true(c.timeout == 4 && c.num_retries == 5 && c.retry_after == 0.25 && c.input_cost_per_token == 1e-7);
    assert_true(c.output_cost_per_token == 0 && c.max_response_bytes == 2048 && !c.require_done && !c.stream &&
                c.new_max_tokens);
    assert_string_equal(c.base_url, "https://a.example/v1");
    assert_string_equal(c.model, "m");
    assert_string_equal(c.api_key, "env:TEST_KEY");
    assert_int_equal(load_text("{}", &c, &error), MINIM_OK);
    assert_int_equal(c.mode, MINIM_ROUTE_MODE_CASCADE);
}

static void the_ledger_the_cache_and_privacy_are_configured(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error = {.text = ""};
    static const char text[] =
        "{\"max_budget\":2.5,\"budget_duration\":\"2mo\",\"ledger\":{\"path\":\"l.db\",\"content\":true},"
        "\"cache\":{\"enabled\":\"read_only\",\"max_age_s\":60,\"sampled\":true},"
        "\"privacy\":{\"detect\":[\"email\",\"key\"],\"patterns\":[\"a.b\",\"^c\"]}}";
    if (load_text(text, &c, &error)) fail_msg("%s", error.text);
    assert_true(c.max_budget == 2.5 && c.budget_duration == -2 && c.cache_max_age == 60 && c.cache_sampled);
    assert_int_equal(c.cache, MINIM_ROUTE_CACHE_READ_ONLY);
    assert_true(c.ledger_content && c.private_detect == (MINIM_PRIVATE_EMAIL | MINIM_PRIVATE_KEY));
    assert_string_equal(c.ledger, "l.db");
    assert_string_equal(c.private_patterns, "a.b\n^c");
    assert_int_equal(load_text("{\"budget_duration\":\"30h\",\"privacy\":{\"detect\":[]}}", &c, &error), MINIM_OK);
    assert_true(c.budget_duration == 108000 && c.private_detect == 0 && c.max_budget < 0);
    /* A path is relative to the file that says it. */
    assert_int_equal(mkdir("sub", 0755), 0);
    write_file("sub/m.json", "{\"ledger\":{\"path\":\"l.db\"}}", 0644);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, "sub/m.json", &error), MINIM_OK);
    assert_string_equal(c.ledger, "sub/l.db");
    /* A ./minim.json that nobody named names no ledger and makes nothing less private. */
    write_file("minim.json", "{\"ledger\":{\"path\":\"l.db\"}}", 0644);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_ERR_FORMAT);
    assert_has(error.text, "ledger.path: not taken");
    write_file("minim.json", "{\"privacy\":{\"detect\":[],\"patterns\":[\"x\"]}}", 0644);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_int_equal(c.private_detect, MINIM_PRIVATE_ALL);
    assert_string_equal(c.private_patterns, "x");
}

static void every_policy_is_configured(void **state) {
    (void)state;
    minim_router_config c;
    minim_route_policy policy;
    minim_error error = {.text = ""};
    static const char text[] =
        "{\"policy\":\"hybrid\",\"confidence_method\":\"self_consistency\",\"threshold_semantics\":\"cost\","
        "\"on_error\":\"fail\",\"error_cost\":0.02,\"verify_accuracy\":0.9,\"span_tokens\":7,\"max_spans\":3,"
        "\"self_consistency\":{\"samples\":3,\"temperature\":0.5,\"pattern\":\"[0-9]+\"},"
        "\"remote\":{\"base_url\":\"https://a.example/v1\",\"continuation\":\"continue_final_message\","
        "\"allowed_fails\":2,\"cooldown_time\":9,\"disable_cooldowns\":true,\"max_fallbacks\":1,"
        "\"fallbacks\":[{\"base_url\":\"https://b.example/v1\"}],"
        "\"context_window_fallbacks\":[{\"base_url\":\"https://c.example/v1\",\"model\":\"long\","
        "\"api_key\":\"file:/long.key\"}],\"provider\":{\"zdr\":true}}}";
    if (load_text(text, &c, &error)) fail_msg("%s", error.text);
    minim_router_config_policy(&c, 1, 1, &policy);
    assert_int_equal(policy.plan, MINIM_ROUTE_PLAN_HYBRID);
    assert_int_equal(policy.method, MINIM_ROUTE_SELF_CONSISTENCY);
    assert_int_equal(policy.threshold_semantics, MINIM_ROUTE_THRESHOLD_COST);
    assert_true(policy.fail_on_error && policy.error_cost == 0.02 && policy.verify_accuracy == 0.9);
    assert_true(policy.span_tokens == 7 && policy.max_spans == 3);
    assert_true(c.samples == 3 && c.sample_temperature == 0.5);
    assert_string_equal(c.sample_pattern, "[0-9]+");
    assert_int_equal(c.continuation, MINIM_ROUTE_CONTINUE_FINAL);
    assert_true(c.allowed_fails == 2 && c.cooldown_time == 9 && c.disable_cooldowns && c.max_fallbacks == 1);
    assert_string_equal(c.context_fallbacks[0].model, "long");
    assert_string_equal(c.context_fallbacks[0].api_key, "file:/long.key");
    assert_string_equal(c.provider, "{\"zdr\":true}");
    assert_int_equal(load_text("{\"confidence_method\":\"verify\"}", &c, &error), MINIM_OK);
    assert_int_equal(c.confidence_method, MINIM_ROUTE_VERIFY);
    assert_true(c.samples == 5 && c.span_tokens == 32 && c.max_fallbacks == 5 && !c.fail_on_error);
    /* A file that nobody named gives no server a key. */
    write_file("minim.json",
               "{\"remote\":{\"context_window_fallbacks\":[{\"base_url\":\"https://c.example/v1\",\"api_key\":"
               "\"env:TEST_KEY\"}]}}",
               0644);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_ERR_FORMAT);
    assert_has(error.text, "remote.context_window_fallbacks: no api_key");
}

static void mistakes_in_a_configuration_name_file_key_found_and_expected(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"{\"treshold\":1}", "test.json: unknown key \"treshold\""},
        {"{\"remote\":{\"url\":\"x\"}}", "test.json: unknown key \"remote.url\""},
        {"{\"base_url\":\"x\"}", "unknown key \"base_url\""},
        {"{\"remote\":7}", "test.json: remote: expected an object"},
        {"{\"threshold\":\"0.5\"}", "test.json: threshold: found a string of 3 bytes, expected a number from 0 to 1"},
        {"{\"threshold\":1.5}", "threshold: found 1.5, expected a number from 0 to 1"},
        {"{\"threshold\":-1}", "threshold: found -1, expected"},
        {"{\"threshold\":null}", "threshold: found null, expected"},
        {"{\"threshold\":[0.5]}", "threshold: found an array, expected"},
        {"{\"mode\":\"loacl\"}", "mode: found \"loacl\", expected \"cascade\", \"local\""},
        {"{\"mode\":1}", "mode: found 1, expected"},
        {"{\"confidence_method\":\"verbalised\"}", "confidence_method: found \"verbalised\", expected \"avg_logprob\""},
        {"{\"remote\":{\"timeout\":0}}", "remote.timeout: found 0, expected a number of seconds"},
        {"{\"remote\":{\"timeout\":true}}", "remote.timeout: found true, expected"},
        {"{\"remote\":{\"num_retries\":1.5}}", "remote.num_retries: found 1.5, expected a whole number from 0 to 10"},
        {"{\"remote\":{\"num_retries\":-1}}", "remote.num_retries: found -1"},
        {"{\"remote\":{\"max_response_bytes\":99999999999999999}}",
         "remote.max_response_bytes: found 99999999999999999"},
        {"{\"remote\":{\"input_cost_per_token\":-1}}", "remote.input_cost_per_token: found -1, expected a price"},
        {"{\"remote\":{\"require_done\":1}}", "remote.require_done: found 1, expected true or false"},
        {"{\"remote\":{\"base_url\":{}}}", "remote.base_url: found an object, expected"},
        {"{\"remote\":{\"base_url\":\"https://a\",\"api_key\":\"sk-very-secret\"}}",
         "remote.api_key: found something else"},
        {"{\"remote\":{\"continuation\":\"suffix\"}}", "remote.continuation: found \"suffix\", expected \"none\""},
        {"{\"on_error\":\"abort\"}", "on_error: found \"abort\", expected \"skip\" or \"fail\""},
        {"{\"self_consistency\":{\"samples\":1}}", "self_consistency.samples: found 1, expected a whole number from 2"},
        {"{\"self_consistency\":5}", "self_consistency: expected an object"},
        {"{\"remote\":{\"max_fallbacks\":6}}", "remote.max_fallbacks: found 6"},
        {"{\"remote\":{\"provider\":\"x\"}}", "remote.provider: found a string"},
        {"{\"remote\":{\"api_key\":\"env:TEST_KEY\"}}", "remote.api_key: expected remote.base_url beside it"},
        {"{\"max_budget\":-1}", "max_budget: found -1, expected an amount"},
        {"{\"budget_duration\":\"1y\"}", "budget_duration: found \"1y\", expected \"30s\""},
        {"{\"budget_duration\":30}", "budget_duration: found 30, expected"},
        {"{\"cache\":{\"enabled\":true}}", "cache.enabled: found true, expected \"on\""},
        {"{\"privacy\":{\"detect\":[\"emails\"]}}", "privacy.detect: found an array, expected an array of \"email\""},
        {"{\"privacy\":{\"patterns\":[\"a\",\"\"]}}", "privacy.patterns: found an array, expected"},
        {"{\"privacy\":{\"patterns\":[\"a\\nb\"]}}", "privacy.patterns: found an array, expected"},
        {"{\"threshold\":1,\"threshold\":0}", "test.json:1:"},
        {"{\"remote\":{\"api_key\":\"sk-very-secret\"", "test.json:1:"},
        {"{\"remote\":{\"api_key\": sk-very-secret}}", "test.json:1:"},
        {"[]", "test.json: found an array, expected an object"},
        {"", "test.json:1:"},
        {"{\"a\\u0000b\":1}", "test.json:1:"},
        {"\xff\xfe", "test.json:1:"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        minim_router_config c;
        minim_error error = {.text = ""};
        if (load_text(rows[i].json, &c, &error) != MINIM_ERR_FORMAT) fail_msg("accepted: %s", rows[i].json);
        assert_has(error.text, rows[i].says);
        assert_lacks(error.text, "sk-very-secret");
        minim_router_config defaults;
        minim_router_config_default(&defaults);
        assert_memory_equal(&c, &defaults, sizeof c); /* unchanged */
    }
}

static void a_configuration_that_is_no_file_is_refused_with_its_name(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, "nowhere.json", &error), MINIM_ERR_IO);
    assert_has(error.text, "nowhere.json: No such file");
    assert_int_equal(minim_router_config_load(&c, ".", &error), MINIM_ERR_IO);
    assert_has(error.text, ".: expected a regular file");
    assert_int_equal(mkfifo("minim.json", 0600), 0); /* found, and must not hang */
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_ERR_IO);
    unlink("minim.json");
    char *big = malloc(2 << 20);
    assert_non_null(big);
    memset(big, ' ', (2 << 20) - 1);
    big[(2 << 20) - 1] = 0;
    assert_int_equal(load_text(big, &c, &error), MINIM_ERR_FORMAT);
    assert_has(error.text, "larger than 1 MiB");
    free(big);
}

static void configurations_are_found_in_order(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK); /* none is fine */
    assert_true(c.threshold == 0.5);
    assert_int_equal(mkdir(".config", 0700) || mkdir(".config/minim", 0700), 0);
    write_file(".config/minim/minim.json", "{\"threshold\":0.1}", 0644);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_true(c.threshold == 0.1);
    assert_int_equal(mkdir("xdg", 0700) || mkdir("xdg/minim", 0700), 0);
    write_file("xdg/minim/minim.json", "{\"threshold\":0.2}", 0644);
    setenv("XDG_CONFIG_HOME", "xdg", 1);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_true(c.threshold == 0.2);
    write_file("minim.json", "{\"threshold\":0.3}", 0644);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_true(c.threshold == 0.3);
    write_file("named.json", "{\"threshold\":0.4}", 0644);
    assert_int_equal(minim_router_config_load(&c, "named.json", &error), MINIM_OK);
    assert_true(c.threshold == 0.4);
}

static void a_file_that_merely_lies_here_does_not_say_where_prompts_and_keys_go(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    write_file("minim.json", "{\"remote\":{\"base_url\":\"https://evil.example/v1\"}}", 0644);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_int_equal(minim_router_config_environment(&c, &error), MINIM_OK);
    assert_string_equal(c.api_key, "");
    assert_int_equal(minim_router_remote_check(&c, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "--config ./minim.json");
    /* Flags and environment replace it. */
    assert_int_equal(minim_router_config_remote(&c, "https://good.example/v1", NULL, &error), MINIM_OK);
    assert_string_equal(c.api_key, "env:OPENAI_API_KEY");
    assert_int_equal(minim_router_remote_check(&c, &error), MINIM_OK);
    /* Naming the file is trusting it. */
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, "./minim.json", &error), MINIM_OK);
    assert_int_equal(minim_router_remote_check(&c, &error), MINIM_OK);
    /* This machine is no stranger. */
    write_file("minim.json", "{\"remote\":{\"base_url\":\"http://localhost:8080/v1\"}}", 0644);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_OK);
    assert_int_equal(minim_router_remote_check(&c, &error), MINIM_OK);
    write_file("minim.json", "{\"remote\":{\"base_url\":\"http://localhost:1/v1\",\"api_key\":\"env:HOME\"}}", 0644);
    assert_int_equal(minim_router_config_load(&c, NULL, &error), MINIM_ERR_FORMAT);
    assert_has(error.text, "remote.api_key: not taken from a file that merely lies");
}

static void flags_go_before_environment_before_file(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    assert_int_equal(load_text("{\"remote\":{\"base_url\":\"https://file/v1\",\"model\":\"file\"}}", &c, &error),
                     MINIM_OK);
    setenv("OPENAI_BASE_URL", "", 1); /* empty is not set */
    setenv("OPENAI_MODEL", "environment", 1);
    assert_int_equal(minim_router_config_environment(&c, &error), MINIM_OK);
    assert_string_equal(c.base_url, "https://file/v1");
    assert_string_equal(c.model, "environment");
    setenv("OPENAI_BASE_URL", "https://environment/v1", 1);
    assert_int_equal(minim_router_config_environment(&c, &error), MINIM_OK);
    assert_string_equal(c.base_url, "https://environment/v1");
    assert_int_equal(minim_router_config_remote(&c, "https://flag/v1", "flag", &error), MINIM_OK);
    assert_string_equal(c.base_url, "https://flag/v1");
    assert_string_equal(c.model, "flag");
    char long_url[2000];
    memset(long_url, 'a', sizeof long_url);
    long_url[sizeof long_url - 1] = 0;
    assert_int_equal(minim_router_config_remote(&c, long_url, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "--remote-url: found 1999 bytes");
    assert_string_equal(c.base_url, "https://flag/v1");
}

static void a_key_only_goes_to_the_address_it_was_named_with(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    static const char file[] = "{\"remote\":{\"base_url\":\"https://file/v1\",\"api_key\":\"env:TEST_KEY\"}}";
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    assert_int_equal(load_text(file, &c, &error), MINIM_OK);
    assert_int_equal(minim_router_config_environment(&c, &error), MINIM_OK);
    assert_string_equal(c.api_key, "env:TEST_KEY"); /* OpenAI's key does not go to the file's address */
    assert_int_equal(minim_router_config_remote(&c, "https://file/v1", NULL, &error), MINIM_OK);
    assert_string_equal(c.api_key, "env:TEST_KEY"); /* the same address */
    assert_int_equal(minim_router_config_remote(&c, "https://other/v1", NULL, &error), MINIM_OK);
    assert_string_equal(c.api_key, "env:OPENAI_API_KEY"); /* nor the file's key anywhere else */
    unsetenv("OPENAI_API_KEY");
    assert_int_equal(load_text(file, &c, &error), MINIM_OK);
    setenv("OPENAI_BASE_URL", "https://other/v1", 1);
    assert_int_equal(minim_router_config_environment(&c, &error), MINIM_OK);
    assert_string_equal(c.api_key, "");
}

static void a_key_file_is_looked_for_beside_the_configuration(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    char *key = NULL;
    assert_int_equal(mkdir("etc", 0700), 0);
    write_file("etc/minim.json", "{\"remote\":{\"base_url\":\"https://a/v1\",\"api_key\":\"file:key\"}}", 0644);
    write_file("etc/key", "abc\n", 0600);
    minim_router_config_default(&c);
    assert_int_equal(minim_router_config_load(&c, "etc/minim.json", &error), MINIM_OK);
    assert_int_equal(key_read(c.api_key, &key, &error), MINIM_OK);
    assert_string_equal(key, "abc");
    key_free(key);
}

/* A caller that was compiled when the struct ended after the threshold. */
static void an_older_and_shorter_struct_is_understood(void **state) {
    (void)state;
    minim_router_config c;
    minim_error error;
    memset(&c, 0x55, sizeof c);
    size_t old = offsetof(minim_router_config, base_url);
    minim_router_config defaults;
    minim_router_config_default(&defaults);
    memcpy(&c, &defaults, old);
    c.size = old;
    write_file("test.json", "{\"threshold\":0.9,\"remote\":{\"model\":\"m\"}}", 0644);
    assert_int_equal(minim_router_config_load(&c, "test.json", &error), MINIM_OK);
    assert_true(c.threshold == 0.9);
    assert_int_equal(c.size, old);
    assert_int_equal(c.base_url[0], 0x55); /* not touched */
    assert_int_equal(minim_router_remote_check(&c, &error), MINIM_ERR_ARGUMENT);
}

/* ---- keys and addresses ----------------------------------------------------------------------------------------- */

static void keys_are_one_line_of_visible_ascii_from_a_private_place(void **state) {
    (void)state;
    static const struct {
        const char *content;
        int mode, good;
        const char *says;
    } rows[] = {
        {"sk-1", 0600, 1, ""},
        {"  sk-1\r\n\n", 0400, 1, ""},
        {"sk-1", 0644, 0, "found mode 0644, expected 0600"},
        {"sk-1", 0640, 0, "found mode 0640"},
        {"sk-1\nX-Evil: 1", 0600, 0, "found byte 0x0a at 4"},
        {"sk-1\rX", 0600, 0, "found byte 0x0d at 4"},
        {"sk 1", 0600, 0, "found byte 0x20 at 2"},
        {"sk-\xc3\xa4", 0600, 0, "found byte 0xc3 at 3"},
        {"", 0600, 0, "found nothing"},
        {" \n", 0600, 0, "found nothing"},
    };
    minim_error error;
    char *key = NULL;
    for (size_t i = 0; i < COUNT(rows); i++) {
        unlink("key");
        write_file("key", rows[i].content, rows[i].mode);
        minim_status status = key_read("file:key", &key, &error);
        assert_int_equal(status == MINIM_OK, rows[i].good);
        if (status == MINIM_OK) {
            assert_string_equal(key, "sk-1");
            key_free(key);
        } else {
            assert_has(error.text, rows[i].says);
            assert_has(error.text, "key");
            assert_lacks(error.text, "sk-1");
        }
        setenv("TEST_KEY", rows[i].content, 1);
        status = key_read("env:TEST_KEY", &key, &error);
        assert_int_equal(status == MINIM_OK, rows[i].good || (rows[i].mode & 077));
        if (status == MINIM_OK)
            key_free(key);
        else
            assert_lacks(error.text, "sk-1");
    }
    unsetenv("TEST_KEY");
    assert_int_equal(key_read("env:TEST_KEY", &key, &error), MINIM_ERR_IO);
    assert_has(error.text, "TEST_KEY is not set");
    assert_int_equal(key_read("file:nowhere", &key, &error), MINIM_ERR_IO);
    assert_int_equal(key_read("file:.", &key, &error), MINIM_ERR_FORMAT);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(key_read("file:fifo", &key, &error), MINIM_ERR_FORMAT);
    assert_int_equal(key_read("sk-very-secret", &key, &error), MINIM_ERR_ARGUMENT);
    assert_lacks(error.text, "sk-very-secret");
    assert_int_equal(key_read("", &key, &error), MINIM_OK);
    assert_string_equal(key, "");
    key_free(key);
    char *big = malloc(20000);
    assert_non_null(big);
    memset(big, 'k', 19999);
    big[19999] = 0;
    unlink("key");
    write_file("key", big, 0600);
    assert_int_equal(key_read("file:key", &key, &error), MINIM_ERR_FORMAT);
    free(big);
}

/* The mapping that holds a key is marked "dd", do not dump, in /proc/self/smaps. */
static void a_key_is_in_no_core_dump(void **state) {
    (void)state;
    minim_error error;
    char *key = NULL, line[512];
    int inside = 0, marked = -1;
    setenv("TEST_KEY", "sk-very-secret", 1);
    assert_int_equal(key_read("env:TEST_KEY", &key, &error), MINIM_OK);
    FILE *maps = fopen("/proc/self/smaps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) inside = (uintptr_t)key >= from && (uintptr_t)key < to;
        if (inside && !strncmp(line, "VmFlags:", 8)) marked = strstr(line, " dd") != NULL;
    }
    if (maps) fclose(maps);
    key_free(key);
    unsetenv("TEST_KEY");
    if (marked < 0) skip(); /* no /proc, or a kernel that does not say */
    assert_int_equal(marked, 1);
}

static void a_key_that_a_server_repeats_is_taken_out(void **state) {
    (void)state;
    char line[] = "x sk-very-secret y sk-very-secret";
    router_redact(line, "sk-very-secret");
    assert_string_equal(line, "x [key] y [key]");
    char other[] = "aaa";
    router_redact(other, "a");
    assert_string_equal(other, "[[[");
    router_redact(other, "");
    router_redact(other, NULL);
    assert_string_equal(other, "[[[");
}

static void addresses_are_https_or_on_this_machine(void **state) {
    (void)state;
    static const struct {
        const char *url, *endpoint; /* NULL = refused */
    } rows[] = {
        {"https://api.example/v1", "https://api.example/v1/chat/completions"},
        {"https://api.example/v1/", "https://api.example/v1/chat/completions"},
        {"https://api.example", "https://api.example/chat/completions"},
        {"https://api.example/v1//", "https://api.example/v1/chat/completions"},
        {"https://api.example/v1/chat/completions", "https://api.example/v1/chat/completions"},
        {"https://api.example/v1?version=2", "https://api.example/v1/chat/completions?version=2"},
        {"https://api.example/v1#part", "https://api.example/v1/chat/completions"},
        {"http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1/chat/completions"},
        {"http://localhost/v1", "http://localhost/v1/chat/completions"},
        {"http://LOCALHOST:1/v1", "http://LOCALHOST:1/v1/chat/completions"},
        {"http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"},
        {"http://127.8.9.1/v1", "http://127.8.9.1/v1/chat/completions"},
        {"http://api.example/v1", NULL},
        {"http://localhost.example/v1", NULL},
        {"http://127.0.0.1.example/v1", NULL},
        {"http://10.0.0.1/v1", NULL},
        {"http://[::2]/v1", NULL},
        {"http://0.0.0.0/v1", NULL},
        {"http://localhost@api.example/v1", NULL},
        {"http://127.0.0.1:80@api.example/v1", NULL},
        {"https://user:pw@api.example/v1", NULL},
        {"https://user@api.example/v1", NULL},
        {"ftp://127.0.0.1/v1", NULL},
        {"file:///etc/passwd", NULL},
        {"gopher://127.0.0.1/", NULL},
        {"api.example/v1", NULL},
        {"localhost:8080/v1", NULL},
        {"https://", NULL},
        {"", NULL},
        {"https://api.example:99999/v1", NULL},
        {"https://api.example/v1\r\nX-Evil: 1", NULL},
        {"https://api exa/v1", NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        url_parts parts;
        minim_error error = {.text = ""};
        minim_status status = url_read(rows[i].url, &parts, &error);
        if ((status == MINIM_OK) != (rows[i].endpoint != NULL)) fail_msg("%s: %s", rows[i].url, error.text);
        if (status == MINIM_OK) {
            assert_string_equal(parts.endpoint, rows[i].endpoint);
            assert_int_equal(parts.loopback, strncmp(rows[i].url, "http:", 5) == 0);
            assert_lacks(parts.origin, "version");
        } else {
            assert_has(error.text, "remote URL");
            assert_lacks(error.text, "pw");
        }
    }
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter_empty_folder, leave_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_configuration_file_is_read_whole),
        IN_FOLDER(the_ledger_the_cache_and_privacy_are_configured),
        IN_FOLDER(every_policy_is_configured),
        IN_FOLDER(mistakes_in_a_configuration_name_file_key_found_and_expected),
        IN_FOLDER(a_configuration_that_is_no_file_is_refused_with_its_name),
        IN_FOLDER(configurations_are_found_in_order),
        IN_FOLDER(a_file_that_merely_lies_here_does_not_say_where_prompts_and_keys_go),
        IN_FOLDER(flags_go_before_environment_before_file),
        IN_FOLDER(a_key_only_goes_to_the_address_it_was_named_with),
        IN_FOLDER(a_key_file_is_looked_for_beside_the_configuration),
        IN_FOLDER(an_older_and_shorter_struct_is_understood),
        IN_FOLDER(keys_are_one_line_of_visible_ascii_from_a_private_place),
        cmocka_unit_test(a_key_is_in_no_core_dump),
        cmocka_unit_test(a_key_that_a_server_repeats_is_taken_out),
        cmocka_unit_test(addresses_are_https_or_on_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
