"""Chat templates for checkpoints that bring none.

Knows how HuatuoGPT-Vision's LLaVA checkpoints were asked when they were trained. Does not know tokenizers or models.
"""

HUATUO_LLAVA = """\
{%- for message in messages -%}
  {{- '<|' + message['role'] + '|>\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] if part['type'] == 'image' -%}
      {{- '<image>\n' -}}
    {%- endfor -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}
      {{- part['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- ' \n' if message['role'] == 'assistant' else '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>\n' -}}
{%- endif -%}
"""
"""Plain-text role markers; all pictures of a turn first, one placeholder a line; a past answer ends in a space and a
line feed (upstream ``cli.py``). There is no system turn."""
