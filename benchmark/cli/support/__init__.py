"""Options, requests and output that several verbs share."""
