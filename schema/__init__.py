"""GraphQL's view: types, inputs, thin fields, error types."""
