/* chat.c: the table of chat formats, and which of them a template is. See chat.h.
 *
 * Each row was written from the published template of the models it names and compared with what that template gives.
 * The order matters: the first row whose marks a template has is taken, so narrow rows stand before wide ones. Where a
 * model writes the first space of its answer itself (Llama 2, Mistral, Vicuna), the space belongs to earlier answers'
 * `before`, but not to `answer`. */
#include "chat.h"

#include <string.h>

#define CHAT_LLAMA3_DATE "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
#define CHAT_GRANITE_3   "You are Granite, developed by IBM. You are a helpful AI assistant."
#define CHAT_PHI_MATH    "Your name is Phi, an AI math expert developed by Microsoft."
#define CHAT_NO_TOOLS    " You do not currently have access to any functions. <functions></functions>"
#define CHAT_OLMO                                                                                                      \
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and your model "            \
    "weights are available at https://huggingface.co/allenai."

/* SmolLM 3's system message begins with metadata. The published template dates it and leaves the turn open, a corrected
 * one that is as common does neither. */
#define CHAT_SMOLLM_SYSTEM(date, mode)                                                                                 \
    "## Metadata\n\nKnowledge Cutoff Date: June 2025\n" date "Reasoning Mode: /" mode "\n\n## Custom Instructions\n\n"
#define CHAT_SMOLLM_NAME "You are a helpful AI assistant named SmolLM, trained by Hugging Face."
#define CHAT_SMOLLM_LONG                                                                                               \
    CHAT_SMOLLM_NAME                                                                                                   \
    " Your role as an assistant involves thoroughly exploring questions through a systematic thinking process before " \
    "providing the final precise and accurate solutions. This requires engaging in a comprehensive cycle of "          \
    "analysis, summarizing, exploration, reassessment, reflection, backtracking, and iteration to develop "            \
    "well-considered thinking process. Please structure your response into two main sections: Thought and Solution "   \
    "using the specified format: <think> Thought section </think> Solution section. In the Thought section, detail "   \
    "your reasoning process in steps. Each step should include detailed considerations such as analysing questions, "  \
    "summarizing relevant findings, brainstorming new ideas, verifying the accuracy of the current steps, refining "   \
    "any errors, and revisiting previous steps. In the Solution section, based on various attempts, explorations, "    \
    "and reflections from the Thought section, systematically present the final solution that you deem correct. The "  \
    "Solution section should be logical, accurate, and concise and detail necessary steps needed to reach the "        \
    "conclusion."
#define CHAT_SMOLLM(date, end, mode, about, thought)                                                                   \
    .system = {"<|im_start|>system\n", "\n\n" end}, .user = {"<|im_start|>user\n", "<|im_end|>\n"},                    \
    .assistant = {"<|im_start|>assistant\n" thought, "<|im_end|>\n"}, .answer = "<|im_start|>assistant\n" thought,     \
    .system_preamble = CHAT_SMOLLM_SYSTEM(date, mode), .system_default = CHAT_SMOLLM_SYSTEM(date, mode) about,         \
    .flags = CHAT_MODE_IN_SYSTEM | CHAT_DROP_NEWLINES
#define CHAT_NO_THOUGHT "<think>\n\n</think>\n"

#define CHAT_CHATML_TURNS                                                                                              \
    .system = {"<|im_start|>system\n", "<|im_end|>\n"}, .user = {"<|im_start|>user\n", "<|im_end|>\n"},                \
    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"}
#define CHAT_LLAMA3_TURNS                                                                                              \
    .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},                                        \
    .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},                                            \
    .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},                                  \
    .answer = "<|start_header_id|>assistant<|end_header_id|>\n\n", .flags = CHAT_TRIM
#define CHAT_PHI4_MINI_TURNS                                                                                           \
    .system = {"<|system|>", "<|end|>"}, .user = {"<|user|>", "<|end|>"}, .assistant = {"<|assistant|>", "<|end|>"},   \
    .answer = "<|assistant|>"
#define CHAT_GRANITE_TURNS                                                                                             \
    .system = {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"},                                         \
    .user = {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"},                                             \
    .assistant = {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"},                                   \
    .answer = "<|start_of_role|>assistant<|end_of_role|>"
#define CHAT_TULU_TURNS                                                                                                \
    .system = {"<|system|>\n", "\n"}, .user = {"<|user|>\n", "\n"}, .assistant = {"<|assistant|>\n", "{eos}\n"},       \
    .answer = "<|assistant|>\n"
#define CHAT_OLMO3_TURNS                                                                                               \
    .system = {"<|im_start|>system\n", CHAT_NO_TOOLS "<|im_end|>\n"}, .user = {"<|im_start|>user\n", "<|im_end|>\n"},  \
    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"}, .system_default = CHAT_OLMO
#define CHAT_VICUNA_SYSTEM                                                                                             \
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "            \
    "detailed, and polite answers to the user's questions."

enum { CHAT_TEMPLATE_MOST = 1 << 20 }; /* bytes of a template that is looked at; those of the families have 10 KB */

static const chat_format chat_formats[] = {
    {.name = "raw", .title = "base models: the contents, one after another", .answer = ""},
    {.name = "llama2",
     .title = "Llama 2 Chat, CodeLlama Instruct",
     .with = {"[INST]", "<<SYS>>"},
     .without = {"messages[idx]", "true==true"},
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"{bos}[INST] ", " [/INST]"},
     .assistant = {" ", " {eos}"},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_USER | CHAT_TRIM_USER | CHAT_TRIM_ASSISTANT | CHAT_TRIM_FOLDED},
    {.name = "llama3.1",
     .title = "Llama 3.1, 3.2, 3.3 Instruct",
     .with = {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date"},
     .without = {"functions}", ">>>", "safety assessment", "t[\"function\"]"},
     .system_default = CHAT_LLAMA3_DATE,
     .system_preamble = CHAT_LLAMA3_DATE,
     CHAT_LLAMA3_TURNS},
    {.name = "llama3",
     .title = "Llama 3 Instruct",
     .with = {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"},
     .without = {"Cutting Knowledge Date", ">>>", "safety assessment", "functools["},
     CHAT_LLAMA3_TURNS},
    {.name = "smollm3",
     .title = "SmolLM 3, thinking",
     .with = {"<|im_start|>", "## Custom Instructions", "Reasoning Mode", "strftime_now"},
     .no_think = "smollm3-nothink",
     CHAT_SMOLLM("Today Date: {date}\n", "", "think", CHAT_SMOLLM_LONG, "")},
    {.name = "smollm3-nothink",
     .title = "SmolLM 3, answering at once",
     CHAT_SMOLLM("Today Date: {date}\n", "", "no_think", CHAT_SMOLLM_NAME, CHAT_NO_THOUGHT)},
    {.name = "smollm3-undated",
     .title = "SmolLM 3, thinking, with the corrected template",
     .with = {"<|im_start|>", "## Custom Instructions", "Reasoning Mode"},
     .no_think = "smollm3-undated-nothink",
     CHAT_SMOLLM("", "<|im_end|>\n", "think", CHAT_SMOLLM_LONG, "")},
    {.name = "smollm3-undated-nothink",
     .title = "SmolLM 3, answering at once, with the corrected template",
     CHAT_SMOLLM("", "<|im_end|>\n", "no_think", CHAT_SMOLLM_NAME, CHAT_NO_THOUGHT)},
    {.name = "olmo3-think",
     .title = "OLMo 3 Think",
     .with = {"<|im_start|>", "<functions></functions>", "<|im_start|>assistant\n<think>"},
     CHAT_OLMO3_TURNS,
     .answer = "<|im_start|>assistant\n<think>"},
    {.name = "olmo3",
     .title = "OLMo 3 Instruct",
     .with = {"<|im_start|>", "<functions></functions>"},
     CHAT_OLMO3_TURNS,
     .answer = "<|im_start|>assistant\n"},
    {.name = "phi4",
     .title = "Phi-4",
     .with = {"<|im_start|>", "<|im_sep|>"},
     .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
     .answer = "<|im_start|>assistant<|im_sep|>",
     .flags = CHAT_TEMPLATE_SYSTEM},
    {.name = "qwen3-thinking",
     .title = "Qwen 3 Thinking, QwQ: the answer always begins with thoughts",
     .with = {"<|im_start|>assistant\n<think>\n"},
     .without = {"truncate_history_thinking"},
     CHAT_CHATML_TURNS,
     .answer = "<|im_start|>assistant\n<think>\n",
     .flags = CHAT_DROP_THOUGHTS | CHAT_DROP_THOUGHTS_GAP},
    {.name = "qwen3.5",
     .title = "Qwen 3.5",
     .with = {"<|im_start|>assistant\n'", "{%-else%}\n{{-'<think>\n'}}"},
     CHAT_CHATML_TURNS,
     .answer = "<|im_start|>assistant\n<think>\n",
     .flags = CHAT_TRIM | CHAT_DROP_THOUGHTS | CHAT_DROP_THOUGHTS_GAP},
    {.name = "qwen3",
     .title = "Qwen 3: the model decides whether to think",
     .with = {"<|im_start|>", "</think>"},
     .without = {"content.lstrip()", "keep_past_thinking", "truncate_history_thinking"},
     CHAT_CHATML_TURNS,
     .answer = "<|im_start|>assistant\n",
     .flags = CHAT_DROP_THOUGHTS | CHAT_DROP_THOUGHTS_GAP},
    {.name = "qwen3-nothink",
     .title = "Qwen 3, answering at once",
     CHAT_CHATML_TURNS,
     .answer = "<|im_start|>assistant\n" CHAT_NO_THOUGHT "\n",
     .flags = CHAT_DROP_THOUGHTS | CHAT_DROP_THOUGHTS_GAP},
    {.name = "chatml",
     .title = "ChatML: SmolLM 1 and 2, Qwen 1.5 to 2.5, Hermes, Yi",
     .with = {"<|im_start|>"},
     .without = {"<end_of_utterance>", "['content']|trim+'<|im_end|>", ".content|trim+'<|im_end|>",
                 "system_message|trim", "</think>"},
     CHAT_CHATML_TURNS,
     .answer = "<|im_start|>assistant\n",
     .flags = CHAT_TEMPLATE_SYSTEM},
    {.name = "gemma",
     .title = "Gemma 1, 2, 3",
     .with = {"<start_of_turn>"},
     .without = {"<|start_of_role|>", "policy expert"},
     .system = {"", "\n\n"},
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .answer = "<start_of_turn>model\n",
     .flags = CHAT_SYSTEM_IN_USER | CHAT_TRIM_USER | CHAT_TRIM_ASSISTANT},
    {.name = "phi4-mini-reasoning",
     .title = "Phi-4-mini-reasoning",
     .with = {"<|assistant|>", "<|end|>", CHAT_PHI_MATH},
     .system_default = CHAT_PHI_MATH,
     .system_preamble = CHAT_PHI_MATH " ",
     CHAT_PHI4_MINI_TURNS},
    {.name = "phi4-mini",
     .title = "Phi-4-mini-instruct",
     .with = {"<|assistant|>", "<|end|>", "<|tool|>"},
     CHAT_PHI4_MINI_TURNS},
    {.name = "phi3",
     .title = "Phi-3, Phi-3.5",
     .with = {"<|assistant|>", "<|end|>"},
     .without = {"[gMASK]", "[BEGIN FINAL RESPONSE]"},
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .answer = "<|assistant|>\n"},
    {.name = "chatglm3",
     .title = "ChatGLM 3",
     .with = {"[gMASK]sop"},
     .begin = "[gMASK]sop",
     .system = {"<|system|>\n ", ""},
     .user = {"<|user|>\n ", ""},
     .assistant = {"<|assistant|>\n ", ""},
     .answer = "<|assistant|>"},
    {.name = "glm4-newline",
     .title = "GLM-4 with a newline before the answer",
     .with = {"[gMASK]<sop>", "<|assistant|>\n{%"},
     .without = {"<think>"},
     .begin = "[gMASK]<sop>",
     .system = {"<|system|>\n", ""},
     .user = {"<|user|>\n", ""},
     .assistant = {"<|assistant|>\n", ""},
     .answer = "<|assistant|>\n"},
    {.name = "glm4",
     .title = "GLM-4",
     .with = {"[gMASK]<sop>"},
     .without = {"<think>"},
     .begin = "[gMASK]<sop>",
     .system = {"<|system|>\n", ""},
     .user = {"<|user|>\n", ""},
     .assistant = {"<|assistant|>\n", ""},
     .answer = "<|assistant|>"},
    {.name = "granite3.1",
     .title = "Granite 3.1, 3.2",
     .with = {"<|start_of_role|>", "Knowledge Cutoff Date: April 2024.\nToday's"},
     .without = {"2024.\n Today's"},
     .system_default = "Knowledge Cutoff Date: April 2024.\nToday's Date: {date us}.\n" CHAT_GRANITE_3,
     CHAT_GRANITE_TURNS},
    {.name = "granite3.3",
     .title = "Granite 3.3",
     .with = {"<|start_of_role|>", "Knowledge Cutoff Date: April 2024.\n Today's"},
     .system_default = " Knowledge Cutoff Date: April 2024.\n Today's Date: {date us}. " CHAT_GRANITE_3,
     CHAT_GRANITE_TURNS},
    {.name = "granite3.3-line",
     .title = "Granite 3.3 with its template's line breaks lost",
     .with = {"<|start_of_role|>", "Knowledge Cutoff Date: April 2024. Today's"},
     .system_default = "Knowledge Cutoff Date: April 2024. Today's Date: {date us}. " CHAT_GRANITE_3,
     CHAT_GRANITE_TURNS},
    {.name = "granite4",
     .title = "Granite 4",
     .with = {"<|start_of_role|>", "g4_default_system_message='"},
     .system_default = "You are a helpful assistant. Please ensure responses are professional, accurate, and safe.",
     CHAT_GRANITE_TURNS},
    {.name = "granite",
     .title = "Granite 3.0",
     .with = {"<|start_of_role|>"},
     .without = {"risk_definition"},
     CHAT_GRANITE_TURNS},
    {.name = "granite-code",
     .title = "Granite Code",
     .with = {"'Question:\n", "'Answer:\n"},
     .system = {"System:\n", "\n\n"},
     .user = {"Question:\n", "\n\n"},
     .assistant = {"Answer:\n", "\n\n"},
     .answer = "Answer:\n"},
    {.name = "olmo",
     .title = "OLMo 1 Instruct",
     .with = {"{{eos_token}}{%for", "<|user|>", "<|assistant|>"},
     .begin = "{eos}",
     CHAT_TULU_TURNS},
    {.name = "tulu",
     .title = "OLMo 2 Instruct, Tülu 3, Falcon 3 Instruct",
     .with = {"'<|user|>\n'+message['content']+'\n'", "<|assistant|>"},
     CHAT_TULU_TURNS},
    {.name = "zephyr",
     .title = "Zephyr, TinyLlama Chat, StableLM Zephyr and Chat",
     .with = {"<|user|>", "<|assistant|>", "eos_token"},
     .without = {"[gMASK]", "<|observation|>", "<|start_of_role|>", "Falcon3", "<|end|>",
                 "'<|user|>\n'+message['content']}}"},
     .system = {"<|system|>\n", "{eos}\n"},
     .user = {"<|user|>\n", "{eos}\n"},
     .assistant = {"<|assistant|>\n", "{eos}\n"},
     .answer = "<|assistant|>\n"},
    {.name = "glm-edge",
     .title = "GLM-Edge",
     .with = {"<|user|>", "<|assistant|>", "<|system|>\n{{"},
     .without = {"[gMASK]", "eos_token"},
     .system = {"<|system|>\n", ""},
     .user = {"<|user|>\n", ""},
     .assistant = {"<|assistant|>\n", ""},
     .answer = "<|assistant|>"},
    {.name = "mistral-v7",
     .title = "Mistral Large 2411",
     .with = {"[INST]", "[SYSTEM_PROMPT]", "[INST] "},
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "{eos}"},
     .answer = ""},
    {.name = "mistral-v7-tekken",
     .title = "Mistral Small 3, Ministral 3",
     .with = {"[INST]", "[SYSTEM_PROMPT]"},
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "{eos}"},
     .answer = "",
     .flags = CHAT_TEMPLATE_SYSTEM},
    {.name = "mistral-v3-tekken",
     .title = "Mistral Nemo, Ministral 8B",
     .with = {"'[INST]'", "[AVAILABLE_TOOLS]"},
     .without = {"[INST] "},
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .assistant = {"", "{eos}"},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_LAST_USER},
    {.name = "mistral-v3",
     .title = "Mistral 7B Instruct v0.3, Mixtral 8x22B Instruct, Mistral Large 2407",
     .with = {"[INST]", "[AVAILABLE_TOOLS]"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .assistant = {" ", "{eos}"},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_LAST_USER | CHAT_TRIM_ASSISTANT},
    {.name = "mistral-v1",
     .title = "Mistral 7B Instruct v0.1 and v0.2, Mixtral 8x7B Instruct",
     .with = {"[INST]", "' [INST] '"},
     .without = {"<<SYS>>"},
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .assistant = {" ", "{eos}"},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_USER},
    {.name = "mistral-v0.1",
     .title = "Mistral 7B Instruct v0.1 with its first template",
     .with = {"[INST] ", " [/INST]", "eos_token+' '"},
     .without = {"<<SYS>>", "[RESP]", "[AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {"", "{eos} "},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_USER},
    {.name = "mistral",
     .title = "Mistral 7B Instruct v0.2 and Mixtral 8x7B Instruct with their first template",
     .with = {"[INST] ", " [/INST]"},
     .without = {"<<SYS>>", "[RESP]", "[AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .assistant = {"", "{eos}"},
     .answer = "",
     .flags = CHAT_SYSTEM_IN_USER},
    {.name = "deepseek-r1",
     .title = "DeepSeek-R1 and its distillations",
     .with = {"<｜User｜>", "<｜Assistant｜><think>\n"},
     .without = {"'<｜User｜>'+message['content']+'"},
     .system = {"", ""},
     .user = {"<｜User｜>", ""},
     .assistant = {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
     .answer = "<｜Assistant｜><think>\n",
     .flags = CHAT_DROP_THOUGHTS},
    {.name = "deepseek-v3",
     .title = "DeepSeek-V3, DeepSeek-R1 of January 2025",
     .with = {"<｜User｜>", "<｜Assistant｜>"},
     .without = {"thinking", "'<｜User｜>'+message['content']+'"},
     .system = {"", ""},
     .user = {"<｜User｜>", ""},
     .assistant = {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
     .answer = "<｜Assistant｜>",
     .flags = CHAT_DROP_THOUGHTS},
    {.name = "deepseek-coder",
     .title = "DeepSeek Coder v1 Instruct",
     .with = {"### Instruction:", "### Response:", "<|EOT|>"},
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .assistant = {"### Response:\n", "\n<|EOT|>\n"},
     .answer = "### Response:\n",
     .system_default = "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek "
                       "Company, and you only answer questions related to computer science. For politically sensitive "
                       "questions, security and privacy issues, and other non-computer science questions, you will "
                       "refuse to answer\n"},
    {.name = "deepseek",
     .title = "DeepSeek LLM and Math Chat, DeepSeek-V2",
     .with = {"'User: '", "'Assistant: '", "eos_token"},
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .assistant = {"Assistant: ", "{eos}"},
     .answer = "Assistant:"},
    {.name = "vicuna-orca",
     .title = "Vicuna's format with SYSTEM:, a line a turn",
     .with = {"USER:", "ASSISTANT:", "SYSTEM:"},
     .without = {"[INST]"},
     .system = {"SYSTEM: ", "\n"},
     .user = {"USER: ", "\n"},
     .assistant = {"ASSISTANT: ", "{eos}\n"},
     .answer = "ASSISTANT:"},
    {.name = "vicuna-lines",
     .title = "Vicuna's format, a line a turn",
     .with = {"'USER: '+message['content']+'\n'", "ASSISTANT:"},
     .system = {"", "\n\n"},
     .user = {"USER: ", "\n"},
     .assistant = {"ASSISTANT: ", "{eos}\n"},
     .answer = "ASSISTANT:"},
    {.name = "vicuna",
     .title = "Vicuna v1.1 and later",
     .with = {"USER:", "ASSISTANT:"},
     .without = {"[INST]"},
     .system = {"", " "},
     .user = {"USER: ", " "},
     .assistant = {"ASSISTANT: ", "{eos}"},
     .answer = "ASSISTANT:",
     .system_default = CHAT_VICUNA_SYSTEM},
    {.name = "openchat",
     .title = "OpenChat 3.5, Starling",
     .with = {"GPT4 Correct "},
     .system = {"GPT4 Correct System: ", "<|end_of_turn|>"},
     .user = {"GPT4 Correct User: ", "<|end_of_turn|>"},
     .assistant = {"GPT4 Correct Assistant: ", "<|end_of_turn|>"},
     .answer = "GPT4 Correct Assistant:"},
    {.name = "danube",
     .title = "H2O Danube",
     .with = {"<|prompt|>", "<|answer|>", "eos_token"},
     .system = {"<|system|>", "{eos}"},
     .user = {"<|prompt|>", "{eos}"},
     .assistant = {"<|answer|>", "{eos}"},
     .answer = "<|answer|>"},
    {.name = "starcoder2",
     .title = "StarCoder 2 Instruct",
     .with = {"### Instruction\n", "### Response\n"},
     .system = {"", "\n\n"},
     .user = {"### Instruction\n", "\n\n"},
     .assistant = {"### Response\n", "{eos}\n\n"},
     .answer = "### Response\n",
     .system_default = "You are an exceptionally intelligent coding assistant that consistently delivers accurate and "
                       "reliable responses to user instructions."},
    {.name = "alpaca",
     .title = "Alpaca and what was tuned on its data",
     .with = {"### Instruction:", "### Response:"},
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

/* ---- reading a template ------------------------------------------------------------------------------------------ */

/* Where the text that begins like the mark ends, NULL if it does not. */
static const char *chat_match(const char *text, const char *mark) {
    for (; *mark; mark++) {
        if (*mark == ' ' && *text != ' ') return NULL;
        while (*text == ' ') text++;
        if (*mark == ' ') continue;
        if (*mark == '\n' && text[0] == '\\' && text[1] == 'n')
            text += 2;
        else if (*text == *mark || (*text == '"' && *mark == '\''))
            text++;
        else
            return NULL;
    }
    return text;
}

/* The first text like the mark; *end gets where it ends. A run of spaces is tried once, so the work is linear. */
static const char *chat_search(const char *text, const char *mark, const char **end) {
    for (; *text; text++) {
        if (*text == ' ' && (*mark != ' ' || text[1] == ' ')) continue;
        if ((*end = chat_match(text, mark))) return text;
    }
    return NULL;
}

static int chat_has_mark(const char *chat_template, const char *mark) {
    const char *end;
    return chat_search(chat_template, mark, &end) != NULL;
}

/* Whether it contains every `with` and no `without`. A row without marks is chosen by name only. */
static int chat_is_format(const char *chat_template, const chat_format *f) {
    if (!f->with[0]) return 0;
    for (size_t i = 0; i < sizeof f->with / sizeof *f->with && f->with[i]; i++)
        if (!chat_has_mark(chat_template, f->with[i])) return 0;
    for (size_t i = 0; i < sizeof f->without / sizeof *f->without && f->without[i]; i++)
        if (chat_has_mark(chat_template, f->without[i])) return 0;
    return 1;
}

/* The quote that ends the string whose next character is *text, NULL if there is none. */
static const char *chat_string_end(const char *text, char quote) {
    for (; *text && *text != quote; text++)
        if (*text == '\\' && text[1]) text++;
    return *text ? text : NULL;
}

static void chat_found_system(chat_style *style, const char *from, const char *end) {
    style->system = from;
    style->n_system = (size_t)(end - from);
}

/* The system message in {% set NAME = "..." %}, if that is all of it. */
static int chat_read_variable(const char *chat_template, const char *set, chat_style *style) {
    const char *from, *end;
    if (!chat_search(chat_template, set, &from)) return 0;
    end = chat_string_end(from, from[-1]);
    if (!end || (!chat_match(end + 1, "%}") && !chat_match(end + 1, "-%}"))) return 0;
    chat_found_system(style, from, end);
    return 1;
}

/* The system message in a system turn that is written out: {{ '<|im_start|>system\n...<|im_end|>' }}. */
static void chat_read_turn(const char *chat_template, const chat_turn *turn, chat_style *style) {
    const char *at, *from, *end;
    for (int tries = 16; tries && (at = chat_search(chat_template, turn->before, &from));
         tries--, chat_template = from) {
        const char quote = at > chat_template ? at[-1] : 0;
        if (!(end = strstr(from, "<|im_end|>"))) return;
        if (quote == '\'' || quote == '"') {
            const char *close = chat_string_end(from, quote);
            if (close && close < end) continue; /* put together from parts */
        } else {
            const char *part = strstr(from, "{{"), *statement = strstr(from, "{%");
            if ((part && part < end) || (statement && statement < end)) continue;
        }
        chat_found_system(style, from, end);
        return;
    }
}

/* 0 when the template makes one up in a way that is not read here: what it gives would be another prompt. */
static int chat_read_system(const char *chat_template, chat_style *style) {
    static const char fixed[] = "default_system_message='";
    if (chat_read_variable(chat_template, fixed, style)) return 1;
    if (chat_has_mark(chat_template, fixed)) return 0;
    if (chat_has_mark(chat_template, "<|im_start|>system\n'+system_message+'<|im_end|>") &&
        chat_read_variable(chat_template, "set system_message='", style))
        return 1;
    chat_read_turn(chat_template, &style->format->system, style);
    return 1;
}

/* Templates that take an empty system message for none. */
static int chat_skips_empty_system(const char *chat_template) {
    static const char *const marks[] = {"=='system' and message['content']", "if ns.system_prompt",
                                        "if ns.system_message", "ns.system_message!=''"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (chat_has_mark(chat_template, marks[i])) return 1;
    return 0;
}

int chat_recognise(const char *chat_template, chat_style *style) {
    const chat_format *f = NULL;
    *style = (chat_style){.format = chat_format_find("raw")};
    if (!chat_template || !*chat_template) return 1;
    if (strlen(chat_template) <= CHAT_TEMPLATE_MOST)
        for (size_t i = 0; (f = chat_format_at(i)) && !chat_is_format(chat_template, f);) i++;
    style->format = f;
    if (!f) return 0;
    style->bos = strstr(chat_template, "bos_token") != NULL;
    style->skip_empty_system = chat_skips_empty_system(chat_template);
    if (!(f->flags & CHAT_TEMPLATE_SYSTEM) || chat_read_system(chat_template, style)) return 1;
    style->format = NULL;
    return 0;
}
