package gatewaytest

import (
	"fmt"
	"strings"
)

// V1Scripts is gateway.md §2.2 to §2.9 as conversations, each error reply of v1
// that needs no special settings included.
func V1Scripts() []Script {
	return []Script{
		{"envelope: before peer", `
			A > {"requestid":0,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":0,"method":"","error":{"code":404,"message":"peer not found: "},"isresponse":true}
			A > {"requestid":1,"method":"send","params":{},"isresponse":false}
			A < {"requestid":1,"method":"","error":{"code":404,"message":"peer not found: "},"isresponse":true}
		`},
		{"envelope: unknown methods", `
			A > {"requestid":0,"method":"fly","params":{},"isresponse":false}
			A < {"requestid":0,"method":"","error":{"code":400,"message":"unknown method: fly"},"isresponse":true}
			A > {"requestid":1,"method":"ListPeers","params":{},"isresponse":false}
			A < {"requestid":1,"method":"","error":{"code":400,"message":"unknown method: ListPeers"},"isresponse":true}
			A > {"requestid":2,"method":"","result":null,"isresponse":true}
			A < {"requestid":2,"method":"","error":{"code":400,"message":"unknown method: "},"isresponse":true}
			A > {}
			A < {"requestid":0,"method":"","error":{"code":400,"message":"unknown method: "},"isresponse":true}
		`},
		{"envelope: isresponse true is a request of its method", `
			A > {"requestid":3,"method":"listpeers","params":{"topic":"x"},"isresponse":true}
			A < {"requestid":3,"method":"","error":{"code":404,"message":"peer not found: "},"isresponse":true}
		`},
		{"envelope: what isn't one is dropped, the session goes on", `
			A > not JSON
			A > {"requestid":"abc","method":"peer","isresponse":false}
			A > {"requestid":1.5,"method":"peer","isresponse":false}
			A > {"requestid":1,"method":7,"isresponse":false}
			A > {"requestid":1,"method":"peer","isresponse":"no"}
			A > [1]
			A > null
			A > {"requestid":2,"method":"fly","isresponse":false}
			A < {"requestid":2,"method":"","error":{"code":400,"message":"unknown method: fly"},"isresponse":true}
		`},
		{"envelope: any letter case, any order, unknown members", `
			A > {"Params":{"PeerKey":""},"METHOD":"peer","more":[1],"RequestID":9}
			A < {"requestid":9,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			A > {"requestid":10,"method":"start","params":{"PROTOCOL":"/t/1","other":{}},"isresponse":false}
			A < {"requestid":10,"method":"","result":null,"isresponse":true}
		`},
		{"envelope: ids used again, negative, large", `
			A > {"requestid":0,"method":"peer","isresponse":false}
			A < {"requestid":0,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			A > {"requestid":0,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":0,"method":"","result":{"peers":[]},"isresponse":true}
			A > {"requestid":-7,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":-7,"method":"","result":{"peers":[]},"isresponse":true}
			A > {"requestid":9007199254740991,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":9007199254740991,"method":"","result":{"peers":[]},"isresponse":true}
		`},
		{"params: missing and ill-typed", `
			A > {"requestid":0,"method":"peer","params":{"peerkey":5},"isresponse":false}
			A < {"requestid":0,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":1,"method":"peer","params":[],"isresponse":false}
			A < {"requestid":1,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":2,"method":"peer","params":null,"isresponse":false}
			A < {"requestid":2,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			A > {"requestid":3,"method":"start","isresponse":false}
			A < {"requestid":3,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":4,"method":"stop","params":{"protocol":{}},"isresponse":false}
			A < {"requestid":4,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":5,"method":"send","params":{"peer":"x","data":1},"isresponse":false}
			A < {"requestid":5,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":6,"method":"subscribe","params":{"topic":null},"isresponse":false}
			A < {"requestid":6,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":7,"method":"publish","params":{"data":1},"isresponse":false}
			A < {"requestid":7,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":8,"method":"addpeers","params":{"peerIds":"x"},"isresponse":false}
			A < {"requestid":8,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":9,"method":"getfile","params":{},"isresponse":false}
			A < {"requestid":9,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
		`},
		{"peer: once a connection", `
			A > {"requestid":1,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":1,"method":"","result":{"peerid":"$A","peerkey":"$key","version":"1.0.0"},"isresponse":true}
			A > {"requestid":2,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":2,"method":"","error":{"code":500,"message":"peer already created on this connection"},"isresponse":true}
			A > {"requestid":3,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":3,"method":"","result":{"peers":[]},"isresponse":true}
		`},
		{"peer: the same key while it lives, and at once after the close", `
			A > {"requestid":1,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":1,"method":"","result":{"peerid":"$A","peerkey":"$key","version":"1.0.0"},"isresponse":true}
			D > {"requestid":0,"method":"peer","params":{"peerkey":"$key"},"isresponse":false}
			D < {"requestid":0,"method":"","error":{"code":500,"message":"peer ID already in use (possible duplicate browser tab)"},"isresponse":true}
			A close
			D > {"requestid":1,"method":"peer","params":{"peerkey":"$key"},"isresponse":false}
			D < {"requestid":1,"method":"","result":{"peerid":"$A","peerkey":"$key","version":"1.0.0"},"isresponse":true}
		`},
		{"peer: bad keys leave the socket as it was", `
			A > {"requestid":0,"method":"peer","params":{"peerkey":"!!"},"isresponse":false}
			A < {"requestid":0,"method":"","error":{"code":500,"message":"failed to decode peer key: $_"},"isresponse":true}
			A > {"requestid":1,"method":"peer","params":{"peerkey":"aGVsbG8="},"isresponse":false}
			A < {"requestid":1,"method":"","error":{"code":500,"message":"failed to unmarshal peer key: $_"},"isresponse":true}
			# a secp256k1 key
			A > {"requestid":2,"method":"peer","params":{"peerkey":"CAISIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"},"isresponse":false}
			A < {"requestid":2,"method":"","error":{"code":500,"message":"failed to unmarshal peer key: $_"},"isresponse":true}
			A > {"requestid":3,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":3,"method":"","result":{"peerid":"$A","peerkey":"$key","version":"1.0.0"},"isresponse":true}
		`},
		{"start and stop", `
			A > {"requestid":1,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":1,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			A > {"requestid":2,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
			A < {"requestid":2,"method":"","result":null,"isresponse":true}
			A > {"requestid":3,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
			A < {"requestid":3,"method":"","error":{"code":500,"message":"already started protocol: /t/1"},"isresponse":true}
			A > {"requestid":4,"method":"stop","params":{"protocol":"/t/1"},"isresponse":false}
			A < {"requestid":4,"method":"","result":null,"isresponse":true}
			A > {"requestid":5,"method":"stop","params":{"protocol":"/t/1"},"isresponse":false}
			A < {"requestid":5,"method":"","error":{"code":500,"message":"protocol not started: /t/1"},"isresponse":true}
			A > {"requestid":6,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			A > {"requestid":7,"method":"start","params":{"protocol":""},"isresponse":false}
			A < {"requestid":7,"method":"","error":{"code":500,"message":"protocol is reserved: "},"isresponse":true}
			A > {"requestid":8,"method":"start","params":{"protocol":"/p2p-webapp/1.0.0"},"isresponse":false}
			A < {"requestid":8,"method":"","error":{"code":500,"message":"protocol is reserved: /p2p-webapp/1.0.0"},"isresponse":true}
			A > {"requestid":9,"method":"start","params":{"protocol":"/parley/x"},"isresponse":false}
			A < {"requestid":9,"method":"","error":{"code":500,"message":"protocol is reserved: /parley/x"},"isresponse":true}
		`},
		{"send: delivered, with the ack before the response", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":{"hello":1},"ack":0},"isresponse":false}
			A < {"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":{"hello":1}},"isresponse":false}
			A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":2,"ack":41},"isresponse":false}
			A < {"requestid":1,"method":"ack","params":{"ack":41},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			B < {"requestid":1,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":2},"isresponse":false}
		`},
		{"send: without ack", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":-1},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":1},"isresponse":false}
			A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":2},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			B < {"requestid":1,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":2},"isresponse":false}
		`},
		{"send: bad ack numbers", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":-2},"isresponse":false}
			A < {"requestid":5,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":1.5},"isresponse":false}
			A < {"requestid":6,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
			A > {"requestid":7,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":"1"},"isresponse":false}
			A < {"requestid":7,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}
		`},
		{"send: data stays the text that it was", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":{"b":1,"a":12345678901234567890123,"e":"\u003c\/ü","f":1.0e2, "s" : [ ]}},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":{"b":1,"a":12345678901234567890123,"e":"\u003c\/ü","f":1.0e2, "s" : [ ]}},"isresponse":false}
			A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":{"$bytes":"aGk="}},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			B < {"requestid":1,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":{"$bytes":"aGk="}},"isresponse":false}
			A > {"requestid":7,"method":"send","params":{"peer":"$B","protocol":"/t/1"},"isresponse":false}
			A < {"requestid":7,"method":"","result":null,"isresponse":true}
			B < {"requestid":2,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":null},"isresponse":false}
		`},
		{"send: to a peer id that isn't one", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"nobody","protocol":"/t/1","data":1,"ack":0},"isresponse":false}
			A < {"requestid":5,"method":"","error":{"code":500,"message":"invalid peer ID: $_"},"isresponse":true}
		`},
		{"send: to the own id, without starting what is sent on", pair + `
			A > {"requestid":5,"method":"start","params":{"protocol":"/me"},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			A > {"requestid":6,"method":"send","params":{"peer":"$A","protocol":"/me","data":"x"},"isresponse":false}
			A <~ {"requestid":6,"method":"","result":null,"isresponse":true}
			A <~ {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/me","data":"x"},"isresponse":false}
		`},
		{"send: what waits for a start comes behind its response", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/late","data":1,"ack":0},"isresponse":false}
			B > {"requestid":9,"method":"start","params":{"protocol":"/late"},"isresponse":false}
			B < {"requestid":9,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/late","data":1},"isresponse":false}
			A < {"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
		`},
		{"pipelined behind peer", `
			B > {"requestid":0,"method":"peer","params":{},"isresponse":false}
			B < {"requestid":0,"method":"","result":{"peerid":"$B","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			B > {"requestid":1,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
			B < {"requestid":1,"method":"","result":null,"isresponse":true}
			A > {"requestid":0,"method":"peer","params":{},"isresponse":false}
			A > {"requestid":1,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
			A > {"requestid":2,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":0},"isresponse":false}
			A < {"requestid":0,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
			A < {"requestid":1,"method":"","result":null,"isresponse":true}
			A < {"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}
			A < {"requestid":2,"method":"","result":null,"isresponse":true}
		`},
		{"topics: members, publications, the own included", pair + `
			A > {"requestid":5,"method":"subscribe","params":{"topic":"room-1"},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			B > {"requestid":5,"method":"subscribe","params":{"topic":"room-1"},"isresponse":false}
			B < {"requestid":5,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerChange","params":{"topic":"room-1","peerid":"$A","joined":true},"isresponse":false}
			A < {"requestid":0,"method":"peerChange","params":{"topic":"room-1","peerid":"$B","joined":true},"isresponse":false}
			A > {"requestid":6,"method":"listpeers","params":{"topic":"room-1"},"isresponse":false}
			A < {"requestid":6,"method":"","result":{"peers":["$B"]},"isresponse":true}
			B > {"requestid":6,"method":"publish","params":{"topic":"room-1","data":{"text":"hi"}},"isresponse":false}
			B <~ {"requestid":6,"method":"","result":null,"isresponse":true}
			B <~ {"requestid":1,"method":"topicData","params":{"topic":"room-1","peerid":"$B","data":{"text":"hi"}},"isresponse":false}
			A < {"requestid":1,"method":"topicData","params":{"topic":"room-1","peerid":"$B","data":{"text":"hi"}},"isresponse":false}
			B > {"requestid":7,"method":"unsubscribe","params":{"topic":"room-1"},"isresponse":false}
			B < {"requestid":7,"method":"","result":null,"isresponse":true}
			A < {"requestid":2,"method":"peerChange","params":{"topic":"room-1","peerid":"$B","joined":false},"isresponse":false}
			A > {"requestid":7,"method":"listpeers","params":{"topic":"room-1"},"isresponse":false}
			A < {"requestid":7,"method":"","result":{"peers":[]},"isresponse":true}
		`},
		{"topics: subscribe and unsubscribe are idempotent", pair + `
			B > {"requestid":4,"method":"subscribe","params":{"topic":"room-2"},"isresponse":false}
			B < {"requestid":4,"method":"","result":null,"isresponse":true}
			A > {"requestid":5,"method":"subscribe","params":{"topic":"room-2"},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			A < {"requestid":0,"method":"peerChange","params":{"topic":"room-2","peerid":"$B","joined":true},"isresponse":false}
			A > {"requestid":6,"method":"subscribe","params":{"topic":"room-2"},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			A > {"requestid":7,"method":"unsubscribe","params":{"topic":"room-2"},"isresponse":false}
			A < {"requestid":7,"method":"","result":null,"isresponse":true}
			A > {"requestid":8,"method":"unsubscribe","params":{"topic":"room-2"},"isresponse":false}
			A < {"requestid":8,"method":"","result":null,"isresponse":true}
			A > {"requestid":9,"method":"unsubscribe","params":{"topic":"never"},"isresponse":false}
			A < {"requestid":9,"method":"","result":null,"isresponse":true}
		`},
		{"topics: publishing needs no subscription", pair + `
			A > {"requestid":5,"method":"publish","params":{"topic":"room-3","data":1},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
		`},
		{"topics: parley's own are reserved", pair + `
			A > {"requestid":5,"method":"subscribe","params":{"topic":"/parley/x"},"isresponse":false}
			A < {"requestid":5,"method":"","error":{"code":500,"message":"topic is reserved: /parley/x"},"isresponse":true}
			A > {"requestid":6,"method":"publish","params":{"topic":"/parley/x","data":1},"isresponse":false}
			A < {"requestid":6,"method":"","error":{"code":500,"message":"topic is reserved: /parley/x"},"isresponse":true}
		`},
		{"peers: added and removed, those that aren't ids skipped", pair + `
			A > {"requestid":5,"method":"addpeers","params":{"peerIds":["$B","nobody",""]},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			A > {"requestid":6,"method":"removepeers","params":{"peerIds":["$B","nobody"]},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
			A > {"requestid":7,"method":"addpeers","params":{"peerIds":[]},"isresponse":false}
			A < {"requestid":7,"method":"","result":null,"isresponse":true}
		`},
		V1BeforePeer(),
		V1BadParams(),
		{"transport: JSON in a binary message is read, and answered in text", `
			A >b {"requestid":0,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":0,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
		`},
		{"transport: too many malformed frames", strings.Repeat("\nA > {\n", 21) + `
			A closed 1008 too many malformed frames, limit 20 a minute
		`},
		{"transport: a large frame before peer", `
			A > {"requestid":0,"method":"peer","params":{"peerkey":"` + strings.Repeat("x", 64<<10) + `"}}
			A closed 1009 $_
		`},
		{"order: a send that waits holds up no other request", pair + `
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/late","data":1,"ack":0},"isresponse":false}
			A > {"requestid":6,"method":"listpeers","params":{"topic":"x"},"isresponse":false}
			A < {"requestid":6,"method":"","result":{"peers":[]},"isresponse":true}
			A > {"requestid":7,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":2,"ack":1},"isresponse":false}
			A < {"requestid":0,"method":"ack","params":{"ack":1},"isresponse":false}
			A < {"requestid":7,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/t/1","data":2},"isresponse":false}
			A > {"requestid":8,"method":"peer","params":{},"isresponse":false}
			A < {"requestid":8,"method":"","error":{"code":500,"message":"peer already created on this connection"},"isresponse":true}
			B > {"requestid":2,"method":"start","params":{"protocol":"/late"},"isresponse":false}
			B < {"requestid":2,"method":"","result":null,"isresponse":true}
			B < {"requestid":1,"method":"peerData","params":{"peer":"$A","protocol":"/late","data":1},"isresponse":false}
			A < {"requestid":1,"method":"ack","params":{"ack":0},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
		`},
		{"order: sends arrive as they were made, publications leave as they were made", pair + v1InOrder()},
		{"stop: nothing of the protocol comes behind its answer", pair + `
			B > {"requestid":2,"method":"stop","params":{"protocol":"/t/1"},"isresponse":false}
			B < {"requestid":2,"method":"","result":null,"isresponse":true}
			A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1},"isresponse":false}
			A < {"requestid":5,"method":"","result":null,"isresponse":true}
			A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/t/2","data":2,"ack":0},"isresponse":false}
			B > {"requestid":3,"method":"start","params":{"protocol":"/t/2"},"isresponse":false}
			B < {"requestid":3,"method":"","result":null,"isresponse":true}
			B < {"requestid":0,"method":"peerData","params":{"peer":"$A","protocol":"/t/2","data":2},"isresponse":false}
			A < {"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}
			A < {"requestid":6,"method":"","result":null,"isresponse":true}
		`},
	}
}

// v1InOrder pipelines sends with and without ack, then publications.
func v1InOrder() string {
	const n = 20
	var asks, answers, there strings.Builder
	acks := 0
	for i := range n {
		ack := -1
		if i%2 == 0 {
			ack = acks
			fmt.Fprintf(&answers, "A <~ {\"requestid\":%d,\"method\":\"ack\",\"params\":{\"ack\":%d},\"isresponse\":false}\n", acks, acks)
			acks++
		}
		fmt.Fprintf(&asks, "A > {\"requestid\":%d,\"method\":\"send\",\"params\":{\"peer\":\"$B\",\"protocol\":\"/t/1\",\"data\":%d,\"ack\":%d},\"isresponse\":false}\n", 10+i, i, ack)
		fmt.Fprintf(&answers, "A <~ {\"requestid\":%d,\"method\":\"\",\"result\":null,\"isresponse\":true}\n", 10+i)
		fmt.Fprintf(&there, "B < {\"requestid\":%d,\"method\":\"peerData\",\"params\":{\"peer\":\"$A\",\"protocol\":\"/t/1\",\"data\":%d},\"isresponse\":false}\n", i, i)
	}
	all := asks.String() + answers.String() + there.String() + `
		B > {"requestid":2,"method":"subscribe","params":{"topic":"room-o"},"isresponse":false}
		B < {"requestid":2,"method":"","result":null,"isresponse":true}
`
	asks.Reset()
	answers.Reset()
	there.Reset()
	for i := range n {
		fmt.Fprintf(&asks, "A > {\"requestid\":%d,\"method\":\"publish\",\"params\":{\"topic\":\"room-o\",\"data\":%d},\"isresponse\":false}\n", 50+i, i)
		fmt.Fprintf(&answers, "A <~ {\"requestid\":%d,\"method\":\"\",\"result\":null,\"isresponse\":true}\n", 50+i)
		fmt.Fprintf(&there, "B < {\"requestid\":%d,\"method\":\"topicData\",\"params\":{\"topic\":\"room-o\",\"peerid\":\"$A\",\"data\":%d},\"isresponse\":false}\n", n+i, i)
	}
	return all + asks.String() + answers.String() + there.String()
}

// v1Methods are all requests but peer.
var v1Methods = []string{"start", "stop", "send", "subscribe", "unsubscribe", "publish", "listpeers", "addpeers", "removepeers",
	"listfiles", "getfile", "storefile", "removefile"}

// V1BeforePeer asks for everything before there is a peer (gateway.md §2.4).
func V1BeforePeer() Script {
	var steps strings.Builder
	for i, method := range v1Methods {
		fmt.Fprintf(&steps, `
			A > {"requestid":%[1]d,"method":"%[2]s","params":{},"isresponse":false}
			A < {"requestid":%[1]d,"method":"","error":{"code":404,"message":"peer not found: "},"isresponse":true}
		`, i, method)
	}
	return Script{"before peer: every request", steps.String()}
}

// V1BadParams asks for everything with params that are missing, of a wrong
// type, and no object.
func V1BadParams() Script {
	const invalid = `A < {"requestid":%d,"method":"","error":{"code":400,"message":"invalid params"},"isresponse":true}`
	wrong := map[string][]string{
		"start": {"protocol"}, "stop": {"protocol"}, "send": {"peer", "protocol"},
		"subscribe": {"topic"}, "unsubscribe": {"topic"}, "publish": {"topic"}, "listpeers": {"topic"},
		"addpeers": {"peerIds"}, "removepeers": {"peerIds"}, "listfiles": {"peerid"}, "getfile": {"cid"},
	}
	var steps strings.Builder
	steps.WriteString(pair)
	id := 100
	for _, method := range v1Methods {
		params := []string{`[]`, `"x"`, `{}`, `null`}
		for _, name := range wrong[method] {
			params = append(params, `{"peer":"$B","protocol":"x","`+name+`":7}`, `{"peer":"$B","protocol":"x","`+name+`":{}}`)
		}
		if wrong[method] == nil {
			continue // those of files: gateway.md §7, with the files
		}
		for _, p := range params {
			fmt.Fprintf(&steps, "\nA > {\"requestid\":%d,\"method\":%q,\"params\":%s,\"isresponse\":false}\n", id, method, p)
			fmt.Fprintf(&steps, invalid+"\n", id)
			id++
		}
	}
	return Script{"params: every request", steps.String()}
}

// V1Limits goes over the limits of a node whose limits.maxMessage and
// limits.outbox are 1 KiB.
func V1Limits() Script {
	text := func(n int) string { return strings.Repeat("x", n-2) } // and its quotes
	return Script{"limits", pair + `
		A > {"requestid":5,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":"` + text(1025) + `","ack":0},"isresponse":false}
		A < {"requestid":5,"method":"","error":{"code":500,"message":"message too large: 1025 bytes, limit 1024"},"isresponse":true}
		A > {"requestid":6,"method":"publish","params":{"topic":"room-4","data":"` + text(1<<20+1) + `"},"isresponse":false}
		A < {"requestid":6,"method":"","error":{"code":500,"message":"message too large: 1048577 bytes, limit 1048576"},"isresponse":true}
		A > {"requestid":7,"method":"send","params":{"peer":"` + absent + `","protocol":"/t/1","data":"` + text(600) + `"},"isresponse":false}
		A < {"requestid":7,"method":"","result":null,"isresponse":true}
		A > {"requestid":8,"method":"send","params":{"peer":"` + absent + `","protocol":"/t/1","data":"` + text(600) + `","ack":0},"isresponse":false}
		A < {"requestid":8,"method":"","error":{"code":500,"message":"send queue full: ` + absent + ` /t/1"},"isresponse":true}
		A > {"requestid":9,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":"` + text(1024) + `","ack":0},"isresponse":false}
		A < {"requestid":0,"method":"ack","params":{"ack":0},"isresponse":false}
		A < {"requestid":9,"method":"","result":null,"isresponse":true}
	`}
}

// absent is the id of a peer that is nowhere.
const absent = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

// V1WithoutFiles is what a node without files answers, so that no call of the
// existing client hangs (gateway.md §3).
func V1WithoutFiles() Script {
	return Script{"files: not on this node", pair + `
		A > {"requestid":5,"method":"listfiles","params":{"peerid":"$B"},"isresponse":false}
		A < {"requestid":5,"method":"","error":{"code":500,"message":"files are not available on this node"},"isresponse":true}
		A < {"requestid":0,"method":"peerFiles","params":{"peerid":"$B","cid":"","entries":{}},"isresponse":false}
		A > {"requestid":6,"method":"getfile","params":{"cid":"QmX"},"isresponse":false}
		A < {"requestid":6,"method":"","result":null,"isresponse":true}
		A < {"requestid":1,"method":"gotFile","params":{"cid":"QmX","success":false,"content":{"error":"files are not available on this node"}},"isresponse":false}
		A > {"requestid":7,"method":"storefile","params":{"path":"a.txt","content":"aGVsbG8=","directory":false},"isresponse":false}
		A < {"requestid":7,"method":"","error":{"code":500,"message":"files are not available on this node"},"isresponse":true}
		A > {"requestid":8,"method":"removefile","params":{"path":"a.txt"},"isresponse":false}
		A < {"requestid":8,"method":"","error":{"code":500,"message":"files are not available on this node"},"isresponse":true}
		C > {"requestid":0,"method":"peer","params":{"rootDirectory":"QmX"},"isresponse":false}
		C < {"requestid":0,"method":"","error":{"code":500,"message":"files are not available on this node"},"isresponse":true}
		C > {"requestid":1,"method":"peer","params":{},"isresponse":false}
		C < {"requestid":1,"method":"","result":{"peerid":"$C","peerkey":"$_","version":"1.0.0"},"isresponse":true}
	`}
}

// V1Unreachable waits for peer.sendTimeout: a peer that doesn't exist, and one
// that doesn't start the protocol.
func V1Unreachable() Script {
	return Script{"send: to nobody", pair + `
		A > {"requestid":5,"method":"send","params":{"peer":"12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN","protocol":"/t/1","data":1,"ack":0},"isresponse":false}
		A < {"requestid":5,"method":"","error":{"code":500,"message":"peer unreachable: 12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN: $_"},"isresponse":true}
		A > {"requestid":6,"method":"send","params":{"peer":"$B","protocol":"/no","data":1,"ack":1},"isresponse":false}
		A < {"requestid":6,"method":"","error":{"code":500,"message":"protocol not started by peer: /no"},"isresponse":true}
		# no ack came, and its number was never used: the next push is the first
		A > {"requestid":7,"method":"send","params":{"peer":"$B","protocol":"/t/1","data":1,"ack":2},"isresponse":false}
		A < {"requestid":0,"method":"ack","params":{"ack":2},"isresponse":false}
		A < {"requestid":7,"method":"","result":null,"isresponse":true}
	`}
}

// pair makes two pages, of which B listens to /t/1.
const pair = `
	A > {"requestid":0,"method":"peer","params":{},"isresponse":false}
	A < {"requestid":0,"method":"","result":{"peerid":"$A","peerkey":"$_","version":"1.0.0"},"isresponse":true}
	B > {"requestid":0,"method":"peer","params":{},"isresponse":false}
	B < {"requestid":0,"method":"","result":{"peerid":"$B","peerkey":"$_","version":"1.0.0"},"isresponse":true}
	B > {"requestid":1,"method":"start","params":{"protocol":"/t/1"},"isresponse":false}
	B < {"requestid":1,"method":"","result":null,"isresponse":true}
`
