"""Requests to vLLM and OpenAI as files keep them: GEN017 to GEN020."""
