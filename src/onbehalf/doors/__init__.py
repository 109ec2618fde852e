"""Everything that touches the world, flat: a file's prefix names the port it fulfils."""
