/* test_convert_bad.c: directories that are damaged, or made to do harm: `minim convert` says in one line what is wrong,
 * ends with 1 and leaves no file behind. */
#include "convert_test.h"

static const char fixture[] = "tests/data/logits/llama/model.gguf";

static void write_llama(void) {
    gguf_file *file = open_file(fixture);
    hf_write_model(directory, file);
    gguf_close(file);
}

/* model.safetensors of this header and `data` bytes of zeros; length: what the first 8 bytes say. */
static void write_header(const char *header, size_t n, uint64_t length, size_t data) {
    uint8_t *bytes = calloc(1, 8 + n + data + 1);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(length >> 8 * i);
    memcpy(bytes + 8, header, n);
    hf_write(directory, "model.safetensors", bytes, 8 + n + data);
    free(bytes);
}

static void damaged_headers_of_safetensors_are_refused(void **state) {
    static const struct {
        const char *header;
        size_t data;
        const char *word;
    } cases[] = {
        {"", 0, "expected \"{\""},
        {"[]", 0, "expected \"{\""},
        {"{", 0, "expected a string"},
        {"{}x", 0, "the end of the header"},
        {"{\"a\"", 0, "expected \":\""},
        {"{\"a\": 1}", 0, "expected \"{\""},
        {"{\"a", 0, "the end of a string"},
        {"{\"a\\", 0, "the end of a string"},
        {"{\"a\\q\": {}}", 0, "a string is damaged"},
        {"{\"a\\u0000b\": {}}", 0, "NUL"},
        {"{\"a\": {\"dtype\": \"F32\"}}", 0, "expected dtype, shape and two data_offsets"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0]}}", 4, "two data_offsets"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4, 8]}}", 4, "at most 2 numbers"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1], \"data_offsets\": [0, 4]}}", 4, "at most 4 numbers"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [-1], \"data_offsets\": [0, 4]}}", 4, "a whole number"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1.5], \"data_offsets\": [0, 4]}}", 4, "\",\" or \"]\""},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [[1]], \"data_offsets\": [0, 4]}}", 4, "a whole number"},
        {"{\"a\": {\"dtype\": \"F32\", \"dtype\": \"F32\"}}", 4, "dtype stands there twice"},
        {"{\"a\": {\"what\": 1}}", 4, "field \"what\" is not known"},
        {"{\"a\": {\"dtype\": 1}}", 4, "expected a string"},
        {"{\"a\": {\"dtype\": \"F99\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 4, "dtype \"F99\" is not known"},
        {"{\"a\": {\"dtype\": \"F16\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 4, "expected 2 from its shape"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 4]}}", 4, "expected 8 from its shape"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 0]}}", 4, "expected a range"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", 4, "expected a range"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [18446744073709551616], \"data_offsets\": [0, 4]}}", 4, "below 2^64"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904], \"data_offsets\": [0, 0]}}", 4, "2^63"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296], \"data_offsets\": [0, 0]}}", 4, "2^63"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [18446744073709551612, 0]}}", 4, "a range"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 8, "8 bytes of data, expected 4"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}", 8, "a gap"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
         " \"b\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
         8, "overlap"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
         " \"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
         8, "a stands there twice"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
         " \"\\u0061\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
         8, "a stands there twice"},
        {"{\"__metadata__\": {\"a\": {\"b\": 1}}}", 0, "expected a string"},
        {"{\"__metadata__\": 1}", 0, "expected \"{\""},
        {"{}", 0, "the weights lack model.embed_tokens.weight"},
        {"{\"x.y\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 4, "has no such tensor"},
        {"{\"model.layers.7.input_layernorm.weight\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}",
         4, "has no such tensor"},
        {"{\"model.layers.99999999999999999999.input_layernorm.weight\": {\"dtype\": \"F32\", \"shape\": [1],"
         " \"data_offsets\": [0, 4]}}",
         4, "has no such tensor"},
        {"{\"model.norm.weight\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 4,
         "expected a vector"},
        {"{\"model.norm.weight\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4]}}", 4,
         "expected a vector"},
        {"{\"lm_head.weight\": {\"dtype\": \"F32\", \"shape\": [1, 1], \"data_offsets\": [0, 4]}}", 4,
         "by config.json"},
        {"{\"model.norm.weight\": {\"dtype\": \"I32\", \"shape\": [64], \"data_offsets\": [0, 256]}}", 256,
         "dtype I32, expected F32, F16 or BF16"},
    };
    (void)state;
    write_llama();
    for (size_t i = 0; i < COUNT(cases); i++) {
        const size_t n = strlen(cases[i].header);
        write_header(cases[i].header, n, n, cases[i].data);
        refuses(cases[i].word, directory);
    }
}

static void lengths_of_safetensors_headers_are_checked(void **state) {
    static const uint64_t lengths[] = {3, 100000001, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7};
    (void)state;
    write_llama();
    for (size_t i = 0; i < COUNT(lengths); i++) {
        write_header("{}", 2, lengths[i], 0);
        refuses("model.safetensors: a header of", "expected at most 2");
    }
    hf_write_text(directory, "model.safetensors", "1234567");
    refuses("model.safetensors", "expected at least 8");
    hf_write_text(directory, "model.safetensors", "");
    refuses("model.safetensors", "expected at least 8");
}

static void deep_headers_take_no_stack(void **state) {
    enum { DEPTH = 1 << 20 };
    char *header = malloc(DEPTH + 8);
    (void)state;
    assert_non_null(header);
    write_llama();
    memset(header, '[', DEPTH);
    memcpy(header, "{\"a\":{\"shape\":", 14);
    write_header(header, DEPTH, DEPTH, 0);
    refuses("model.safetensors", "a whole number");
    memset(header, '[', DEPTH);
    header[DEPTH] = 0;
    hf_write_text(directory, "config.json", header);
    refuses("config.json", "depth");
    free(header);
}

/* Every prefix of a good file, at coarse steps inside the data. */
static void a_file_cut_anywhere_is_refused(void **state) {
    char path[256];
    (void)state;
    write_llama();
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    static uint8_t bytes[1 << 22];
    FILE *file = fopen(path, "rb");
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(n > 4096 && n < sizeof bytes);
    for (size_t cut = 0; cut < n; cut = cut < 32 ? cut + 7 : cut * 2) {
        hf_write(directory, "model.safetensors", bytes, cut);
        refuses("model.safetensors", directory);
    }
    hf_write(directory, "model.safetensors", bytes, n - 1);
    refuses("model.safetensors", "data_offsets");
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

/* The llama fixture's config.json with `members` behind its own: the last of two wins. */
static void write_config(const char *members) {
    char text[4096], path[256];
    gguf_file *file = open_file(fixture);
    hf_write_config(directory, file);
    gguf_close(file);
    snprintf(path, sizeof path, "%s/config.json", directory);
    FILE *in = fopen(path, "rb");
    text[fread(text, 1, sizeof text - 1, in)] = 0;
    fclose(in);
    snprintf(strrchr(text, '}'), 1024, ", %s}", members);
    hf_write_text(directory, "config.json", text);
}

static void impossible_configurations_are_refused(void **state) {
    static const struct {
        const char *members, *word;
    } cases[] = {
        {"\"architectures\": []", "architectures: \"\" is not known, expected one of LlamaForCausalLM"},
        {"\"architectures\": [\"MixtralForCausalLM\"]", "MixtralForCausalLM"},
        {"\"architectures\": {\"a\": 1}", "is not known"},
        {"\"num_hidden_layers\": 0", "num_hidden_layers: expected a number from 1"},
        {"\"num_hidden_layers\": 1e300", "num_hidden_layers: expected a number from 1"},
        {"\"num_hidden_layers\": 2.5", "expected a whole number"},
        {"\"num_hidden_layers\": \"2\"", "num_hidden_layers: expected a number"},
        {"\"num_hidden_layers\": 100", "the weights lack model.layers."},
        {"\"hidden_size\": null", "hidden_size is missing"},
        {"\"hidden_size\": -64", "hidden_size: expected"},
        {"\"hidden_size\": 32", "expected"},
        {"\"num_attention_heads\": 3", "is not a multiple of num_key_value_heads"},
        {"\"num_key_value_heads\": 0", "num_key_value_heads: expected"},
        {"\"head_dim\": 7", "expected even numbers"},
        {"\"head_dim\": 64", "by config.json"},
        {"\"vocab_size\": 4000000000", "vocab_size: expected"},
        {"\"vocab_size\": 511", "by config.json"},
        {"\"rms_norm_eps\": 0", "rms_norm_eps: expected"},
        {"\"rms_norm_eps\": -1e-5", "rms_norm_eps: expected"},
        {"\"rope_theta\": 0", "rope_theta: expected"},
        {"\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0}", "factor: expected"},
        {"\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": \"x\"}", "factor: expected"},
        {"\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}", "original_max_position_embeddings is missing"},
        {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"high_freq_factor\": 0}", "high_freq_factor: expected"},
        {"\"quantization_config\": {\"quant_method\": \"fp8\"}", "the weights are quantised"},
    };
    (void)state;
    write_llama();
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_config(cases[i].members);
        refuses(cases[i].word, directory);
    }
    hf_write_text(directory, "config.json", "{\"architectures\": ");
    refuses("config.json: line 1", directory);
    hf_write_text(directory, "config.json", "[1]");
    refuses("config.json: expected a JSON object", directory);
    hf_write_text(directory, "config.json", "");
    refuses("config.json", directory);
}

static void phi3_factors_are_counted(void **state) {
    static const char *const lists[] = {"[1, 2]", "[]", "{}",
                                        "[1, 2, 3, 4, 5, 6, 7, 8, \"x\", 10, 11, 12, 13, 14, 15, 16]",
                                        "[1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 11, 12, 13, 14, 15, 16]"};
    (void)state;
    write_llama();
    for (size_t i = 0; i < COUNT(lists); i++) {
        char members[1024];
        snprintf(members, sizeof members,
                 "\"architectures\": [\"Phi3ForCausalLM\"], \"rope_scaling\": {\"type\": \"longrope\", "
                 "\"long_factor\": [1, 2, 3,"
                 " 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], \"short_factor\": %s}",
                 lists[i]);
        write_config(members);
        refuses("expected", directory);
    }
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

static void damaged_vocabularies_are_refused(void **state) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *word;
    } models[] = {
        {"", 0, "there are no tokens"},
        {"\x0a", 1, "byte 0: expected a field"},
        {"\x0a\x05"
         "abc",
         5, "byte 0: expected a field"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "expected a field"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, "expected a field"},
        {"\x0b", 1, "expected a field"},
        {"\x08\x01", 2, "expected a field"},
        {"\x0a\x02\x0a\x05", 4, "expected a field"},
        {"\x0a\x05\x15\x00\x00\xc0\x7f", 7, "score is not finite"},
        {"\x0a\x05\x15\x00\x00\x80\xff", 7, "score is not finite"},
    };
    (void)state;
    write_llama();
    for (size_t i = 0; i < COUNT(models); i++) {
        hf_write(directory, "tokenizer.model", models[i].bytes, models[i].n);
        refuses(models[i].word, "tokenizer.model");
    }
    write_llama();
    hf_write_text(directory, "added_tokens.json", "{\"<x>\": \"7\"}");
    refuses("added_tokens.json: <x>: expected a token id", directory);
    hf_write_text(directory, "added_tokens.json", "{}");
    hf_write_text(directory, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}");
    refuses("tokenizer_config.json: added_tokens_decoder: expected a token id", directory);
    hf_write_text(directory, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"5\": {\"content\": 1}}}");
    refuses("tokenizer_config.json: added token 5: expected a text", directory);
    /* Ids out of range are left out, as the peers' converter does. */
    hf_write_text(
        directory, "tokenizer_config.json",
        "{\"added_tokens_decoder\": {\"512\": {\"content\": \"a\"}, \"-1\": {\"content\": \"b\"},"
        " \"99999999999999999999\": {\"content\": \"c\"}}, \"bos_token\": 5, \"chat_template\": {\"a\": [1]}}");
    convert("-q");
    unlink(output);
    char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.model", directory);
    unlink(path);
    refuses("there is neither tokenizer.json nor tokenizer.model", directory);
}

static void damaged_tokenizer_json_is_refused(void **state) {
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"{", "tokenizer.json: line 1"},
        {"{}", "model.type: expected \"BPE\""},
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "found \"Unigram\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", "model.merges: expected a list"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "pre_tokenizer: its steps"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": []}}",
         "there are none"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(a+)+b\\n\"}, \"behavior\": "
         "\"Isolated\"}}",
         "none of the known ones: R(a+)+b"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 512}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "expected an id from 0 to 511"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "expected an id"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"x\"}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "found \"x\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": [\"a\"], \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "expected an object of tokens"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"ab\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "model.merges[0]: expected two texts"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "model.merges[0]: expected two texts"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\", 1]]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}",
         "model.merges[0]: expected two texts"},
        {"{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 0}, \"merges\": [7]}}",
         "model.merges[0]: expected two texts"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"added_tokens\": [{\"id\": 512, \"content\": \"z\"}]}",
         "added_tokens: \"z\": expected an id from 0 to 511"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]},"
         " \"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"added_tokens\": [{\"id\": 5}]}",
         "an added token has no text"},
    };
    char path[256];
    (void)state;
    write_llama();
    snprintf(path, sizeof path, "%s/tokenizer.model", directory);
    unlink(path);
    for (size_t i = 0; i < COUNT(cases); i++) {
        hf_write_text(directory, "tokenizer.json", cases[i].text);
        refuses(cases[i].word, "tokenizer.json");
    }
}

static void what_is_no_file_is_refused(void **state) {
    char path[256];
    (void)state;
    write_llama();
    static const char *const names[] = {"model.safetensors", "config.json", "tokenizer.model"};
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
        mkdir(path, 0700);
        refuses(names[i], "expected a file");
        rmdir(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        refuses(names[i], "expected a file");
        unlink(path);
        write_llama();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged_headers_of_safetensors_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lengths_of_safetensors_headers_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(deep_headers_take_no_stack, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_cut_anywhere_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_configurations_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(phi3_factors_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_vocabularies_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_tokenizer_json_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
