package api

import _ "embed" // the contract travels with the binary

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI returns the contract, openapi.yaml, as it was when the program was built.
func OpenAPI() []byte { return append([]byte(nil), openAPI...) }
