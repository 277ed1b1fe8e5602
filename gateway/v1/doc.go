// Package v1 is the codec of protocol v1: JSON envelopes, one in a WebSocket
// text message, byte-compatible with the clients that exist (gateway.md §2).
//
//	page → node  {"requestid":N,"method":"M","params":{…},"isresponse":false}
//	node → page  {"requestid":N,"method":"","result":X,"isresponse":true}
//	             {"requestid":N,"method":"","error":{"code":C,"message":"text"},"isresponse":true}
//	             {"requestid":K,"method":"M","params":{…},"isresponse":false}      a push
//
// It is pure: no I/O and no state. Data is JSON text and passed on as it came.
package v1

// The codes of an error. Clients look at the message only.
const (
	CodeMalformed = 400
	CodeNoPeer    = 404
	CodeOther     = 500
)

// Version is what the peer request answers.
const Version = "1.0.0"

// MaxNesting is how deep a frame may be nested.
const MaxNesting = 512

// The requests.
const (
	MethodPeer        = "peer"        // {peerkey?, rootDirectory?} → {peerid, peerkey, version}
	MethodStart       = "start"       // {protocol}
	MethodStop        = "stop"        // {protocol}
	MethodSend        = "send"        // {peer, protocol, data, ack?}
	MethodSubscribe   = "subscribe"   // {topic}
	MethodUnsubscribe = "unsubscribe" // {topic}
	MethodPublish     = "publish"     // {topic, data}
	MethodListPeers   = "listpeers"   // {topic} → {peers}
	MethodAddPeers    = "addpeers"    // {peerIds}
	MethodRemovePeers = "removepeers" // {peerIds}
	MethodListFiles   = "listfiles"   // {peerid}, then push peerFiles
	MethodGetFile     = "getfile"     // {cid, fallbackPeerID?}, then push gotFile
	MethodStoreFile   = "storefile"   // {path, content?, directory} → {fileCid, rootCid}
	MethodRemoveFile  = "removefile"  // {path}
)
