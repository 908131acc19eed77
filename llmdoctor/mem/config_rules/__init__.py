"""The MEM rules over training configurations as they lie in a repository: no model, no library, no device."""
