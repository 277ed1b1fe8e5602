package v2

// The frames of channels (client/PROTOCOL.md, Channels). Contents come in by the
// thousand; the others are few.

// AppendChannelContent appends a content frame.
func AppendChannelContent(dst []byte, channel uint64, content []byte) []byte {
	return AppendBytes(AppendUint(open(dst, 3, KindContent), channel), content)
}

// AppendCredit appends a credit frame: n bytes more.
func AppendCredit(dst []byte, channel, n uint64) []byte {
	return AppendUint(AppendUint(open(dst, 3, KindCredit), channel), n)
}

// AppendEnd appends an end frame; code "" is a close in order, more says that
// contents are still to come.
func AppendEnd(dst []byte, channel uint64, code, text string, more bool) []byte {
	n := 4
	if more {
		n++
	}
	dst = AppendUint(open(dst, n, KindEnd), channel)
	dst = AppendText(AppendText(dst, code), clip(ValidText(text), maxErrorText))
	if more {
		dst = AppendUint(dst, FlagMore)
	}
	return dst
}

// ChannelInfo is what a channel is, as frames have it.
type ChannelInfo struct {
	Remote   string
	Verified bool
	Path     string
	Relay    string
	RTT      float64 // milliseconds
}

// AppendChannelInfo appends {remote, verified, path, relay, rtt}.
func AppendChannelInfo(dst []byte, i ChannelInfo) []byte {
	dst = AppendText(AppendText(AppendMap(dst, 5), "remote"), i.Remote)
	dst = AppendBool(AppendText(dst, "verified"), i.Verified)
	dst = AppendText(AppendText(dst, "path"), i.Path)
	dst = AppendText(AppendText(dst, "relay"), i.Relay)
	return AppendFloat(AppendText(dst, "rtt"), i.RTT)
}

// AppendOpened appends the result of an open: {window, info}.
func AppendOpened(dst []byte, window uint64, i ChannelInfo) []byte {
	dst = AppendUint(AppendText(AppendMap(dst, 2), "window"), window)
	return AppendChannelInfo(AppendText(dst, "info"), i)
}

// AppendIncoming appends an incoming frame.
func AppendIncoming(dst []byte, channel uint64, space, protocol string, window uint64, i ChannelInfo) []byte {
	dst = AppendUint(open(dst, 6, KindIncoming), channel)
	dst = AppendText(AppendText(dst, space), protocol)
	return AppendChannelInfo(AppendUint(dst, window), i)
}

// ChannelContent reads a content frame. The content shares memory with the
// message.
func (f Frame) ChannelContent() (channel uint64, content []byte, err error) {
	r := f.reader()
	channel, content = r.uint(MaxID), r.str(majorBytes)
	if r.bad {
		return 0, nil, ErrFrame
	}
	return channel, content, nil
}

// Credit reads a credit frame.
func (f Frame) Credit() (channel, n uint64, err error) {
	r := f.reader()
	channel, n = r.uint(MaxID), r.uint(MaxID)
	if r.bad {
		return 0, 0, ErrFrame
	}
	return channel, n, nil
}

// EndFrame is an end frame; Code is "" for a close in order.
type EndFrame struct {
	Channel uint64
	Code    string
	Text    string
	More    bool
}

// End reads an end frame.
func (f Frame) End() (e EndFrame, err error) {
	r := f.reader()
	e.Channel = r.uint(MaxID)
	e.Code, e.Text = string(r.text()), clip(string(r.text()), maxErrorText)
	if r.left > 0 {
		e.More = r.uint(MaxID)&FlagMore != 0
	}
	if r.bad {
		return EndFrame{}, ErrFrame
	}
	return e, nil
}
