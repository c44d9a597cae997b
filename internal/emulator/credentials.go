package emulator

import "crypto/subtle"

// Credentials is what callers must show. An empty field lets nobody in, except an empty SMTPUser: then the relay asks
// for no AUTH, as a relay on the local network does.
type Credentials struct {
	SendGridKey        string
	MailgunKey         string
	MailgunDomain      string
	PostmarkToken      string
	AWSAccessKeyID     string
	AWSSecretAccessKey string
	AWSRegion          string
	SMTPUser           string
	SMTPPassword       string
}

// DefaultCredentials are in the form of the real ones and known to everybody.
func DefaultCredentials() Credentials {
	return Credentials{
		SendGridKey:        "SG.emulator.local-development-only",
		MailgunKey:         "key-emulator-local-development-only",
		MailgunDomain:      "mg.example.com",
		PostmarkToken:      "e0000000-0000-4000-8000-00000000e000",
		AWSAccessKeyID:     "AKIAEMULATOREXAMPLE0",
		AWSSecretAccessKey: "emulator/local+development+only/EXAMPLEKEY",
		AWSRegion:          "us-east-1",
		SMTPUser:           "sendgate",
		SMTPPassword:       "local-development-only",
	}
}

// same compares a shown credential with the wanted one in constant time; an empty wanted one equals nothing.
func same(shown, wanted string) bool {
	return wanted != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(wanted)) == 1
}
