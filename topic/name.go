package topic

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-p2p/parley/identity"
)

// MaxName is the length of a topic's name in bytes (gateway.md §6.1).
const MaxName = 256

// reservedPrefixes begin the topics that belong to parley itself.
var reservedPrefixes = []string{"/parley/", SpacePrefix}

// SpacePrefix begins the topics in which nodes tell which agents joined a space
// of channels: behind it is the space's hash in hex (channels.md §5). Pages can't
// use them.
const SpacePrefix = "parley/space/"

// checkName refuses names that aren't topics of pages.
func checkName(name string) error {
	switch {
	case name == "":
		return identity.Errorf(identity.CodeMalformed, "topic is empty")
	case len(name) > MaxName:
		return identity.Errorf(identity.CodeMalformed, "topic has %d bytes, limit %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return identity.Errorf(identity.CodeMalformed, "topic is not valid UTF-8")
	case strings.ContainsFunc(name, hidden):
		return identity.Errorf(identity.CodeMalformed, "topic has control characters")
	case slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }):
		return identity.Errorf(identity.CodeReserved, "topic is reserved: %s", name)
	}
	return nil
}

// hidden characters make two names look like one: controls, and marks that turn
// the direction of the text around them.
func hidden(c rune) bool {
	return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c)
}

// wireName is the topic on the network: the name verbatim, behind the namespace
// where one is configured (gateway.md §6.3).
func wireName(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
