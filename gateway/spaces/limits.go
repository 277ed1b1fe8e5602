package spaces

// The limits of one page. They are fixed; docs/limits.md has them.
const (
	MaxChannels = 256      // channels at once
	maxIncoming = 192      // of these, opened by others
	MaxContent  = 64 << 10 // bytes of one content
	maxSpaces   = 64
	maxListened = 256 // protocols in all spaces

	minCost    = 32        // bytes of credit that the smallest content costs
	window     = 256 << 10 // credit that a page gets for a channel
	bareWindow = 64 << 10  // the same once the page's channels have windowSum
	windowSum  = 8 << 20

	minPageWindow = 128 << 10 // credit that a page may give at first
	maxCredit     = 16 << 20  // and at most
)
