package httpapi

import (
	"net/http"
	"testing"
)

func TestCalendarIsPartOfARequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := func(calendar string) string {
		return `{"from":"shop@example.com","to":"ann@example.org","subject":"s","text":"t"` + calendar + `}`
	}
	const ics = `"content":"BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n"`
	post := func(calendar, key string) answer {
		return r.do(http.MethodPost, "/v1/send", r.send, body(calendar), "Idempotency-Key", key)
	}
	r.want(post(`,"calendar":{"method":"REQUEST",`+ics+`}`, "k"), http.StatusAccepted, "")
	r.want(post(`,"calendar":{"method":"request",`+ics+`}`, "k"), http.StatusAccepted, "") // the same
	r.want(post(``, "k"), http.StatusUnprocessableEntity, "idempotency_mismatch")
	r.want(post(``, "without"), http.StatusAccepted, "")
	r.want(post(`,"calendar":null`, "without"), http.StatusAccepted, "")
	r.want(post(`,"calendar":{"method":"REQUEST",`+ics+`}`, "without"), http.StatusUnprocessableEntity, "idempotency_mismatch")
	r.want(post(`,"calendar":{"method":"CANCEL",`+ics+`}`, "m"), http.StatusUnprocessableEntity, "invalid")
	r.want(post(`,"calendar":{"method":"REQUEST"}`, "c"), http.StatusUnprocessableEntity, "invalid")
	r.want(post(`,"calendar":"REQUEST"`, "s"), http.StatusUnprocessableEntity, "invalid")
	r.want(post(`,"calendar":{"methd":"REQUEST"}`, "u"), http.StatusUnprocessableEntity, "invalid")
}
