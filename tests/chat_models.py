"""Chat models made on the spot: a small random model of tiny_models.py, special tokens of its own, and a template."""

import json
import runpy
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]

CHATML = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
QWEN = (
    """{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nthe men sang<|im_end|>\n' }}{% endif %}"""
    + CHATML
)
LLAMA3 = """{% set loop_messages = messages %}{% for m in loop_messages %}{% set content = '<|start_header_id|>' + m['role'] + \
'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}\
{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}\
{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}\
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}\
{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}\
{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
HARMONY = """<|start|>system<|message|>the rain fell on {{ strftime_now('%Y-%m-%d') }}<|end|>{% set rest = messages %}\
{% if messages[0]['role'] == 'system' %}<|start|>developer<|message|># the town\n\n{{ messages[0]['content'] }}<|end|>\
{% set rest = messages[1:] %}{% endif %}{% for m in rest %}{% if m['role'] == 'assistant' %}\
<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}\
<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|start|>assistant{% endif %}"""
UPPER = """{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | upper }}<|im_end|>{% endfor %}"""
FORGETFUL = """{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if loop.last %}{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}"""
TEMPLATES = {
    "chatml": CHATML,
    "qwen": QWEN,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "harmony": HARMONY,
    "upper": UPPER,
    "forgetful": FORGETFUL,
}
SPECIAL = {
    "chatml": ["<|im_start|>", "<|im_end|>"],
    "qwen": ["<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "gemma": ["<start_of_turn>", "<end_of_turn>"],
    "harmony": ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"],
}  # fmt: skip


def make_chat_model(
    family: str, style: str, folder: Path, *, template: str | None = None, bos: str | None = None
) -> Path:
    """The folder of a random chat model. template: instead of that of the style, in a file of its own."""
    make_model(family, folder)
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    names = SPECIAL.get(style, SPECIAL["chatml"])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.save(str(file))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    if style == "llama3":
        settings["bos_token"] = "<|begin_of_text|>"
    if bos is not None:
        settings["bos_token"] = bos
    settings["eos_token"] = names[-1]
    if template is None:
        settings["chat_template"] = TEMPLATES[style]
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
