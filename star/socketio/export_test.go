package socketio

// OwnTransport is what a client uses that is given none.
var OwnTransport = ownTransport
