"""The service as its users meet it: a real `tunery up`, asked through OpenAI's SDK."""
