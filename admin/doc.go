// Package admin is a node's own HTTP: what an operator looks at.
//
//	/_parley/             the dashboard: one plain page, no build step
//	/_parley/status.json  the same as JSON
//	/_parley/metrics      Prometheus
//	/health, /ready       200 or 503, without detail
//
// What is shown comes in as panels, so that a part is added without touching
// the page:
//
//	a := admin.New(admin.Config{Version: "1.2.0"})
//	a.Add(admin.TopicsPanel(func() []admin.Topic { … }))
//	a.Counters("parley_messages_total", "Messages by result.", []string{"result"}, func() []admin.Sample { … })
//	mux.Handle("/_parley/", policy.Wrap(a))
//
// The package asks for no token: who mounts it does (gateway.md §2.8, §8).
// Names that come from the network are data: the page never reads them as HTML
// (G-S10), and they lose their control characters here.
package admin
