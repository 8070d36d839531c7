"""The bundled text-to-image model: its drawing domain, its training recipe and its checker."""
