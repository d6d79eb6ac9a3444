"""OpenAI's inference endpoints without HTTP: a body's value in, an object out.

The edge answers requests with them, and a batch its lines.
"""
