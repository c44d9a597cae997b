// Package sendgate is the root of the module, and holds nothing but the tests of the tree itself.
//
// The program is in cmd/sendgate, the Go client in api, and everything else in internal, a package per decision. A
// reader begins with internal/mail for the words, internal/provider for the seam to the email service providers, and
// internal/deliver for what happens to a message. Code does not belong here: nothing could import it without meeting
// the whole module.
package sendgate
