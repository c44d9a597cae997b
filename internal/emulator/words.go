package emulator

import (
	"fmt"
	"strings"
)

// The hosts, people and texts at the receiving side, the same for all providers. The addresses are those of RFC 5737.
const (
	SendingIP    = "192.0.2.10"
	RemoteIP     = "198.51.100.25"
	ReaderIP     = "203.0.113.7"
	ReaderAgent  = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
	ClickedURL   = "https://example.com/order"
	TextDeferred = "451 4.3.0 Temporary server error. Please try again later"
)

// TextBounced is the reply that refuses an unknown address.
func TextBounced(to string) string {
	return "550 5.1.1 <" + to + ">: Recipient address rejected: User unknown"
}

// TextFull is the reply that refuses an address because its mailbox is full.
func TextFull(to string) string {
	return "552 5.2.2 <" + to + ">: Recipient address rejected: Mailbox full"
}

// QueueID is the id that the receiving host gives a message.
func QueueID(v *Event) string { return fmt.Sprintf("%X", v.Hash("queue")[:6]) }

// DomainOf is the part of an address after the at sign.
func DomainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// MXOf is the host that takes mail for an address.
func MXOf(address string) string { return "mx." + DomainOf(address) }
