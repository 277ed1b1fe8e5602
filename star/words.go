package star

import (
	"github.com/parley-p2p/parley/star/address"
	"github.com/parley-p2p/parley/star/proxy"
	"github.com/parley-p2p/parley/star/socketio"
)

// The answers on the wire (star.md §6.6). Those about addresses, streams and dials
// stand in star/address and star/proxy.
const (
	// The reference's own words.
	sayNoKey       = "Crypto Challenge required but no Id provided"
	sayCryptoError = "Crypto error"
	sayWrong       = "Signature Invalid"
	sayNotYours    = "Not authorized for this address"
	sayNotFound    = "Peer not found"
	sayOtherID     = "Id is not matching"

	// parley's, to joins.
	sayBadKey       = "Public key is not valid"
	sayExpired      = "Challenge expired"
	sayTooMany      = "Too many addresses"
	sayInUse        = "Address is in use"
	sayBadArguments = "Invalid arguments"
	sayBusy         = "Server busy"
	sayShutdown     = "Server is shutting down"
	sayNoRegistry   = "Registry unavailable"
	sayRate         = "Rate limit reached"
)

// Events of the protocol (star.md §6, §8).
const (
	eventJoin  = "ss-join"
	eventLeave = "ss-leave"
	eventDial  = "ss-dial"
	eventPeer  = "ws-peer"
	eventPeers = "parley.peers"
	eventLost  = "parley.lost"
	eventDrain = "parley.drain"
)

// known are all answers that are the server's own: metrics name them.
var known = map[string]bool{
	address.ErrInvalid.Text: true, sayNoKey: true, sayCryptoError: true, sayWrong: true, sayNotYours: true, sayNotFound: true, sayOtherID: true,
	sayBadKey: true, sayExpired: true, sayTooMany: true, sayInUse: true, sayBadArguments: true, sayBusy: true, sayShutdown: true,
	sayNoRegistry: true, sayRate: true, proxy.DialTimedOut: true, proxy.DialRefused: true, proxy.DialIDInUse: true, proxy.DialIDBad: true,
	proxy.DialTooMany: true, proxy.PeerDisconnected.Text: true,
}

// The limits of this package by the names that metrics give them; those of
// star/proxy and star/socketio stand there.
const (
	limitSessions      = "sessions"
	limitSessionsPerIP = "sessions_per_ip"
	limitNewSessions   = "new_sessions"
	limitConns         = "connections"
	limitConnsPerIP    = "connections_per_ip"
	limitAddrs         = "addresses"
	limitAddrsSession  = "addresses_per_session"
	limitAddrsKey      = "addresses_per_key"
	limitAddrsIP       = "addresses_per_ip"
	limitJoins         = "joins"
	limitServerJoins   = "server_joins"
	limitChallenges    = "challenges"
	limitChallengeLife = "challenge_life"
	limitWrong         = "wrong_signatures"
	limitVerifying     = "verifying"
	limitDials         = "dials"
	limitEvents        = "events"
	limitIdle          = "idle"
	limitSessionRate   = "session_rate"
	limitIPRate        = "ip_rate"
	limitList          = "list"
	limitBatch         = "refresh_batch"
	limitNewMembers    = "new_members"
)

var limitNames = []string{
	limitSessions, limitSessionsPerIP, limitNewSessions, limitConns, limitConnsPerIP, limitAddrs, limitAddrsSession, limitAddrsKey, limitAddrsIP,
	limitJoins, limitServerJoins, limitChallenges, limitChallengeLife, limitWrong, limitVerifying, limitDials, limitEvents, limitIdle,
	limitSessionRate, limitIPRate, limitList, limitBatch, limitNewMembers,
	proxy.LimitOpenDials, proxy.LimitUnanswered, proxy.LimitCalleeDials, proxy.LimitServerDials, proxy.LimitAnswer, proxy.LimitStall,
	proxy.LimitServerBytes, proxy.LimitStream, proxy.LimitSocket, proxy.LimitDialBytes, proxy.LimitDialLife,
	socketio.LimitMessage, socketio.LimitText, socketio.LimitDepth, socketio.LimitAttachments, socketio.LimitStuck, socketio.LimitUpgrade,
}
