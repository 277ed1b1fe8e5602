package v1

import (
	"encoding/json"
	"strconv"
)

// AppendResult appends a response; an empty result is null.
func AppendResult(dst []byte, id int64, result []byte) []byte {
	dst = appendOpen(dst, id)
	dst = append(dst, `"","result":`...)
	if len(result) == 0 {
		dst = append(dst, "null"...)
	}
	return append(append(dst, result...), `,"isresponse":true}`...)
}

// AppendError appends an error response.
func AppendError(dst []byte, id int64, code int, message string) []byte {
	dst = appendOpen(dst, id)
	dst = append(dst, `"","error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = appendString(append(dst, `,"message":`...), message)
	return append(dst, `},"isresponse":true}`...)
}

func appendOpen(dst []byte, id int64) []byte {
	dst = strconv.AppendInt(append(dst, `{"requestid":`...), id, 10)
	return append(dst, `,"method":`...)
}

func appendPush(dst []byte, k int64, method string) []byte {
	dst = appendString(appendOpen(dst, k), method)
	return append(dst, `,"params":{`...)
}

func closePush(dst []byte) []byte { return append(dst, `},"isresponse":false}`...) }

// AppendPeerData appends a message. Data is JSON.
func AppendPeerData(dst []byte, k int64, peer, protocol string, data []byte) []byte {
	dst = appendPush(dst, k, "peerData")
	dst = appendString(append(dst, `"peer":`...), peer)
	dst = appendString(append(dst, `,"protocol":`...), protocol)
	return closePush(append(append(dst, `,"data":`...), data...))
}

// AppendTopicData appends a publication. Data is JSON.
func AppendTopicData(dst []byte, k int64, topic, peer string, data []byte) []byte {
	dst = appendPush(dst, k, "topicData")
	dst = appendString(append(dst, `"topic":`...), topic)
	dst = appendString(append(dst, `,"peerid":`...), peer)
	return closePush(append(append(dst, `,"data":`...), data...))
}

// AppendPeerChange appends that a member came or went.
func AppendPeerChange(dst []byte, k int64, topic, peer string, joined bool) []byte {
	dst = appendPush(dst, k, "peerChange")
	dst = appendString(append(dst, `"topic":`...), topic)
	dst = appendString(append(dst, `,"peerid":`...), peer)
	return closePush(strconv.AppendBool(append(dst, `,"joined":`...), joined))
}

// AppendAck appends that the message with this number was delivered.
func AppendAck(dst []byte, k, ack int64) []byte {
	dst = appendPush(dst, k, "ack")
	return closePush(strconv.AppendInt(append(dst, `"ack":`...), ack, 10))
}

// AppendNoFiles appends the peerFiles that follows a failed listfiles: without
// it the next equal call of the existing client would hang (gateway.md §3).
func AppendNoFiles(dst []byte, k int64, peer string) []byte {
	dst = appendPush(dst, k, "peerFiles")
	dst = appendString(append(dst, `"peerid":`...), peer)
	return closePush(append(dst, `,"cid":"","entries":{}`...))
}

// AppendNoFile appends the gotFile of a getfile that failed.
func AppendNoFile(dst []byte, k int64, cid, reason string) []byte {
	dst = appendPush(dst, k, "gotFile")
	dst = appendString(append(dst, `"cid":`...), cid)
	dst = appendString(append(dst, `,"success":false,"content":{"error":`...), reason)
	return closePush(append(dst, '}'))
}

// PeerResult is the result of the peer request.
func PeerResult(id, key string) []byte {
	dst := appendString([]byte(`{"peerid":`), id)
	dst = appendString(append(dst, `,"peerkey":`...), key)
	return append(dst, `,"version":"`+Version+`"}`...)
}

// PeersResult is the result of listpeers.
func PeersResult(ids []string) []byte {
	dst := []byte(`{"peers":[`)
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, id)
	}
	return append(dst, "]}"...)
}

// appendString writes a JSON string as encoding/json does, which is what the
// reference uses: < > & and the line separators escaped.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always has a form
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
