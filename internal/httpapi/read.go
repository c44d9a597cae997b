package httpapi

import "net/http"

// read takes the JSON body of a call that has no parameters in its query. The answers to what is wrong with it are
// decodeStrict's.
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
