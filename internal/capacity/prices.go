package capacity

// Price is what a vendor charges an account for the recipients of a month.
type Price struct {
	Plan    string  `json:"plan"`
	Dollars float64 `json:"dollars_per_month"`
	AtMost  bool    `json:"at_most,omitempty"` // the vendor has cheaper plans for this volume, whose price is not known here
	Note    string  `json:"note,omitempty"`
	Source  string  `json:"source"`
	Date    string  `json:"date"` // on which it was read
}

// tariff is one plan of a vendor. All prices are in dollars, without tax.
type tariff struct {
	kind, name string
	monthly    float64
	included   float64 // recipients a month
	more       float64 // for each 1,000 beyond them
	most       float64 // recipients for which the price is published
	larger     bool    // larger plans lower the price of what is beyond included
	note       string
	source     string
	date       string
}

const (
	sendgridPrices = "https://www.twilio.com/en-us/products/email-api/pricing"
	mailgunPrices  = "https://www.mailgun.com/pricing/"
	postmarkPrices = "https://postmarkapp.com/pricing"
	resendPrices   = "https://resend.com/pricing"
)

// tariffs are the published plans. To bring one up to date, change its row with its date.
var tariffs = []tariff{
	{"sendgrid", "Essentials 50K", 19.95, 50e3, 1.30, 100e3, true, "", sendgridPrices, "2026-08-13"},
	{"sendgrid", "Pro 100K", 89.95, 100e3, 1.10, 2.5e6, true, "", sendgridPrices, "2026-08-13"},
	{"mailgun", "Basic", 15, 10e3, 1.80, 50e3, false, "", mailgunPrices, "2025-12"},
	{"mailgun", "Foundation", 35, 50e3, 1.30, 2.5e6, true, "", mailgunPrices, "2025-12"},
	{"mailgun", "Scale", 90, 100e3, 0, 100e3, false, "", mailgunPrices, "2025-12"},
	{"postmark", "Basic", 15, 10e3, 1.80, 300e3, true, "", postmarkPrices, "2026-08-13"},
	{"postmark", "Pro", 16.50, 10e3, 1.30, 300e3, true, "", postmarkPrices, "2026-08-13"},
	{"postmark", "Platform", 18, 10e3, 1.20, 300e3, true, "", postmarkPrices, "2026-08-13"},
	{"resend", "Pro", 20, 50e3, 0.90, 100e3, true, "", resendPrices, "2026-03-09"},
	{"resend", "Scale", 90, 100e3, 0.90, 1e6, true, "", resendPrices, "2026-03-09"},
	{"resend", "Scale 1M", 650, 1e6, 0, 1e6, false, "", resendPrices, "2025-08-20"},
	{
		"ses", "à la carte", 0, 0, 0.10, 1e10, false, "attachments cost $0.12 a GB; accounts made since 2026-07-21 begin on Essentials, $0.16 for 1,000",
		"https://aws.amazon.com/ses/pricing/", "2026-08-13",
	},
}

// price returns the cheapest published plan of a kind, or nil if none is known for that many recipients a month.
func price(kind string, recipients float64) *Price {
	var best *Price
	for _, t := range tariffs {
		if t.kind != kind || recipients == 0 || recipients > t.most {
			continue
		}
		extra := max(0, recipients-t.included)
		dollars := t.monthly + ceil(extra/1000)*t.more
		if best == nil || dollars < best.Dollars {
			best = &Price{Plan: t.name, Dollars: dollars, AtMost: t.larger && extra > 0, Note: t.note, Source: t.source, Date: t.date}
		}
	}
	return best
}

// The machines are DigitalOcean's basic droplets and its block storage: a common choice, whose prices are easy to compare with others.
var sizes = []struct{ Cores, MemoryGB, DiskGB, Price float64 }{
	{1, 1, 25, 6}, {1, 2, 50, 12}, {2, 2, 60, 18}, {2, 4, 80, 24}, {4, 8, 160, 48}, {8, 16, 320, 96},
}

const (
	volumePrice  = 0.10 // for a GB
	volumeMostGB = 16e3
)

// Source says where prices are from, and since when they were read or in force.
type Source struct {
	What string `json:"what"`
	URL  string `json:"source"`
	Date string `json:"date"`
}

var machineSources = []Source{
	{"machines", "https://www.digitalocean.com/pricing/droplets", "2022-07-01"},
	{"volumes", "https://www.digitalocean.com/pricing/volumes", "2026-02"},
}
