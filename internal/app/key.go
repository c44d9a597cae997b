package app

import "github.com/sendgate/sendgate/internal/httpapi"

// GenerateKey makes a key in the form that SENDGATE_ADMIN_KEY wants. It is stored nowhere.
func GenerateKey() string {
	_, full, _ := httpapi.NewKey()
	return full
}
