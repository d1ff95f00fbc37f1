"""One frozen dataclass a configuration node; a string literal under each field documents it, with its unit."""
