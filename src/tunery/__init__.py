"""tunery: a company's own fine-tuning service behind OpenAI's API."""

__version__ = "0.1.0"
