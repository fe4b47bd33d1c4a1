"""Tables, figures, documents and the page: what people read."""
