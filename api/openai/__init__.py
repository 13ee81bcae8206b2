"""OpenAI's Images API, spoken over the native one."""
