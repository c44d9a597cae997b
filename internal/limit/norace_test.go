//go:build !race

package limit_test

const slow = false
