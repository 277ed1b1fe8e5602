package spaces

// The limits of one page. They are fixed; docs/limits.md has them.
const (
	MaxChannels = maxOpened + maxIncoming // channels at once
	MaxContent  = 64 << 10                // bytes of one content

	maxOpened   = 128 // channels that the page opened
	maxIncoming = 128 // channels that others did
	maxSpaces   = 64
	maxListened = 256 // protocols in all spaces

	minCost    = 32        // bytes of credit that the smallest content costs
	fullWindow = 256 << 10 // credit that a page gets for a channel
	bareWindow = 64 << 10  // the same once the page's channels have windowSum
	windowSum  = 8 << 20

	// What a page may give a channel at first, and at most at once. Two contents
	// at least: the page grants by halves.
	minPageWindow = 2 * MaxContent
	maxCredit     = 16 << 20
)

// costOf is the credit that a content costs.
func costOf(content []byte) int64 { return int64(max(len(content), minCost)) }
