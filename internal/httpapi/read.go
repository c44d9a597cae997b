package httpapi

import "net/http"

// read reads the JSON body of a call without query parameters. Its errors are those of noQuery, readJSON and decodeStrict.
func read[T any](s *Server, w http.ResponseWriter, r *http.Request) (T, error) {
	var in T
	if err := noQuery(r); err != nil {
		return in, err
	}
	body, release, err := s.readJSON(w, r)
	defer release()
	if err != nil {
		return in, err
	}
	return in, decodeStrict(body, &in)
}
