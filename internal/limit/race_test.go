//go:build race

package limit_test

// slow: the race detector makes the model ten times slower and finds nothing in it, since each world is one goroutine.
const slow = true
