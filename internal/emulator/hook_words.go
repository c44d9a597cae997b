package emulator

import (
	"fmt"
	"strings"
)

// What the hosts and people at the far end are and say, alike at all providers. The addresses are those of RFC 5737.
const (
	sendingIP    = "192.0.2.10"
	remoteIP     = "198.51.100.25"
	readerIP     = "203.0.113.7"
	readerAgent  = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
	clickedURL   = "https://example.com/order"
	textDeferred = "451 4.3.0 Temporary server error. Please try again later"
)

func textBounced(to string) string {
	return "550 5.1.1 <" + to + ">: Recipient address rejected: User unknown"
}

func textFull(to string) string {
	return "552 5.2.2 <" + to + ">: Recipient address rejected: Mailbox full"
}

// queueOf is what the far end calls a message that it took.
func queueOf(h *happening) string { return fmt.Sprintf("%X", h.hash("queue")[:6]) }

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// mxOf is the host that takes mail for an address.
func mxOf(address string) string { return "mx." + domainOf(address) }
