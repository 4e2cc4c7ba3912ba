/* chat.c: the table of chat formats. See chat.h.
 *
 * Each row was written from the published template of the models it names. Where a model writes the first space of its
 * answer itself (Llama 2, Mistral, Vicuna), the space belongs to earlier answers' `before`, but not to `answer`. */
#include "chat.h"

#include <string.h>

/* Marks of formats that look like one of ours but are not. */
#define CHAT_MISTRAL_V3  "[AVAILABLE_TOOLS]"
#define CHAT_MISTRAL_V7  "[SYSTEM_PROMPT]"
#define CHAT_GLM         "[gMASK]"
#define CHAT_GLM_TOOLS   "<|observation|>"
#define CHAT_PHI_4       "<|im_sep|>"
#define CHAT_PHI_4_MINI  "<|tool|>"
#define CHAT_GRANITE     "<|start_of_role|>"
#define CHAT_FALCON_3    "Falcon3"
#define CHAT_ORCA_VICUNA "SYSTEM:"
#define CHAT_DEEPSEEK    "<|EOT|>"

static const chat_format chat_formats[] = {
    {.name = "raw", .title = "base models: the contents, one after another", .answer = ""},
    {.name = "llama2",
     .title = "Llama 2 Chat",
     .with = {"[INST]", "<<SYS>>"},
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"{bos}[INST] ", " [/INST]"},
     .assistant = {" ", " {eos}"},
     .answer = "",
     .system_in_user = 1,
     .trim = 1},
    {.name = "llama3",
     .title = "Llama 3, 3.1, 3.2, 3.3 Instruct",
     .with = {"<|start_header_id|>", "<|eot_id|>"},
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .trim = 1},
    {.name = "chatml",
     .title = "ChatML: SmolLM, Qwen, Hermes, Yi, Danube",
     .with = {"<|im_start|>"},
     .without = {CHAT_PHI_4},
     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
     .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .answer = "<|im_start|>assistant\n"},
    {.name = "gemma",
     .title = "Gemma 1, 2, 3",
     .with = {"<start_of_turn>"},
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .answer = "<start_of_turn>model\n",
     .system_in_user = 1,
     .trim = 1},
    {.name = "phi3",
     .title = "Phi-3, Phi-3.5",
     .with = {"<|assistant|>", "<|end|>"},
     .without = {CHAT_GLM, CHAT_PHI_4_MINI},
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .answer = "<|assistant|>\n"},
    {.name = "zephyr",
     .title = "Zephyr, TinyLlama Chat, StableLM Zephyr",
     .with = {"<|user|>", "<|assistant|>", "eos_token"},
     .without = {CHAT_GLM, CHAT_GLM_TOOLS, CHAT_GRANITE, CHAT_FALCON_3, "<|end|>"},
     .system = {"<|system|>\n", "{eos}\n"},
     .user = {"<|user|>\n", "{eos}\n"},
     .assistant = {"<|assistant|>\n", "{eos}\n"},
     .answer = "<|assistant|>\n"},
    {.name = "mistral",
     .title = "Mistral Instruct v0.1 and v0.2, Mixtral Instruct v0.1",
     .with = {"[INST]"},
     .without = {CHAT_MISTRAL_V3, CHAT_MISTRAL_V7, "<<SYS>>"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {" ", "{eos}"},
     .answer = "",
     .system_in_user = 1},
    {.name = "vicuna",
     .title = "Vicuna v1.1 and later",
     .with = {"USER:", "ASSISTANT:"},
     .without = {CHAT_ORCA_VICUNA, "[INST]"},
     .system = {"", " "},
     .user = {"USER: ", " "},
     .assistant = {"ASSISTANT: ", "{eos}"},
     .answer = "ASSISTANT:",
     .system_default = "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                       "helpful, detailed, and polite answers to the user's questions."},
    {.name = "alpaca",
     .title = "Alpaca and what was tuned on its data",
     .with = {"### Instruction:", "### Response:"},
     .without = {CHAT_DEEPSEEK},
     .system = {"", "\n\n"},
     .user = {"### Instruction:\n", "\n\n"},
     .assistant = {"### Response:\n", "{eos}\n\n"},
     .answer = "### Response:\n",
     .system_default = "Below is an instruction that describes a task. Write a response that appropriately completes "
                       "the request."},
};

const chat_format *chat_format_at(size_t index) {
    return index < sizeof chat_formats / sizeof *chat_formats ? &chat_formats[index] : NULL;
}

const chat_format *chat_format_find(const char *name) {
    const chat_format *f;
    for (size_t i = 0; (f = chat_format_at(i)); i++)
        if (!strcmp(f->name, name)) return f;
    return NULL;
}

/* How many of the n marks (NULL = unused) the template contains. */
static size_t chat_count_marks(const char *chat_template, const char *const *mark, size_t n) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) found += mark[i] && strstr(chat_template, mark[i]);
    return found;
}

static size_t chat_used_marks(const char *const *mark, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) used += mark[i] != NULL;
    return used;
}

const chat_format *chat_format_recognise(const char *chat_template) {
    const chat_format *f;
    if (!chat_template || !*chat_template) return chat_format_find("raw");
    for (size_t i = 0; (f = chat_format_at(i)); i++) {
        const size_t n_with = sizeof f->with / sizeof *f->with, n_without = sizeof f->without / sizeof *f->without;
        const size_t used = chat_used_marks(f->with, n_with);
        if (used && chat_count_marks(chat_template, f->with, n_with) == used &&
            !chat_count_marks(chat_template, f->without, n_without))
            return f;
    }
    return NULL;
}
