"""`.tri` text to frozen syntax nodes and back: `parse`, `format`. Nothing here knows what a name means."""
