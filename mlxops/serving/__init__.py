"""An OpenAI-compatible server without a model: requests read and checked, answers written, who may ask."""
