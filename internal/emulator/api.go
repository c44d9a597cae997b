package emulator

import "net/http"

// maxAPIBody caps what registrations and look-ups send.
const maxAPIBody = 1 << 20

// api serves the calls of a provider that are not sends: read, check the credential, answer.
func (e *Emulator) api(d dialect, call func(r *http.Request, body []byte) *reply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r, maxAPIBody)
		if err != nil {
			d.tooLarge().writeTo(w)
			return
		}
		p := d.authenticate(r, body)
		if p == nil {
			p = call(r, body)
		}
		d.decorate(p)
		p.writeTo(w)
	})
}

// registrations adds the calls by which a service has itself told of events.
func (e *Emulator) registrations(mux *http.ServeMux) {
	sg := sendGrid{e}
	const webhooks = "/sendgrid/v3/user/webhooks/event/settings"
	mux.Handle("GET "+webhooks+"/all", e.api(sg, sg.listWebhooks))
	mux.Handle("POST "+webhooks, e.api(sg, sg.createWebhook))
	mux.Handle("GET "+webhooks+"/{id}", e.api(sg, sg.getWebhook))
	mux.Handle("PATCH "+webhooks+"/{id}", e.api(sg, sg.updateWebhook))
	mux.Handle("DELETE "+webhooks+"/{id}", e.api(sg, sg.deleteWebhook))
	mux.Handle("GET "+webhooks+"/signed/{id}", e.api(sg, sg.getSigned))
	mux.Handle("PATCH "+webhooks+"/signed/{id}", e.api(sg, sg.setSigned))

	mg := mailgun{e}
	const domain = "/mailgun/v3/domains/{domain}/webhooks"
	mux.Handle("GET "+domain, e.api(mg, mg.listWebhooks))
	mux.Handle("POST "+domain, e.api(mg, mg.createWebhook))
	mux.Handle("GET "+domain+"/{name}", e.api(mg, mg.getWebhook))
	mux.Handle("PUT "+domain+"/{name}", e.api(mg, mg.updateWebhook))
	mux.Handle("DELETE "+domain+"/{name}", e.api(mg, mg.deleteWebhook))
	mux.Handle("GET /mailgun/v5/accounts/http_signing_key", e.api(mg, mg.signingKey))

	pm := postmark{e}
	mux.Handle("GET /postmark/webhooks", e.api(pm, pm.listWebhooks))
	mux.Handle("POST /postmark/webhooks", e.api(pm, pm.createWebhook))
	mux.Handle("GET /postmark/webhooks/{id}", e.api(pm, pm.getWebhook))
	mux.Handle("PUT /postmark/webhooks/{id}", e.api(pm, pm.updateWebhook))
	mux.Handle("DELETE /postmark/webhooks/{id}", e.api(pm, pm.deleteWebhook))

	sv := ses{e}
	const sets = "/ses/v2/email/configuration-sets"
	mux.Handle("GET "+sets, e.api(sv, sv.listSets))
	mux.Handle("POST "+sets, e.api(sv, sv.createSet))
	mux.Handle("GET "+sets+"/{set}", e.api(sv, sv.getSet))
	mux.Handle("GET "+sets+"/{set}/event-destinations", e.api(sv, sv.listDestinations))
	mux.Handle("POST "+sets+"/{set}/event-destinations", e.api(sv, sv.createDestination))
	mux.Handle("PUT "+sets+"/{set}/event-destinations/{name}", e.api(sv, sv.updateDestination))
	// Of a service whose base URL has no path, the certificate and the confirmation are at the root.
	for _, base := range []string{"/", "/ses/"} {
		mux.Handle("GET "+base+"{name}", answer(sv.certificate))
		mux.Handle("GET "+base+"{$}", answer(sv.query))
		mux.Handle("POST "+base+"{$}", answer(sv.query))
	}
	mux.Handle("GET /ses", answer(sv.query))
	mux.Handle("POST /ses", answer(sv.query))
}
