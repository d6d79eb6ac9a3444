"""The engines' clients. No torch here: the API process stays light."""
