"""OpenAI's objects under OpenAI's names: shapes only, no logic."""
