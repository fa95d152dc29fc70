package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
)

// family is a metric as it is documented.
type family struct {
	name, kind, help string
	labels           []string
}

// recorder is a registry that only learns what there is: one that gathers has no
// vector before its first value.
type recorder struct {
	families map[string]*family
	err      error
}

// Register implements prometheus.Registerer.
func (r *recorder) Register(collector prometheus.Collector) error {
	kind, err := kindOf(collector)
	if err != nil {
		return err
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		collector.Describe(descriptions)
	}()
	for description := range descriptions {
		f, problem := familyOf(description.String())
		if problem != nil {
			err = cmp.Or(err, problem)
			continue
		}
		f.kind = kind
		r.families[f.name] = f
	}
	return err
}

// MustRegister implements prometheus.Registerer. The first error is kept.
func (r *recorder) MustRegister(collectors ...prometheus.Collector) {
	for _, collector := range collectors {
		if err := r.Register(collector); err != nil && r.err == nil {
			r.err = err
		}
	}
}

// Unregister implements prometheus.Registerer.
func (r *recorder) Unregister(prometheus.Collector) bool { return false }

// kindOf asks a metric for its value, and knows vectors, which have none yet.
func kindOf(collector prometheus.Collector) (string, error) {
	switch c := collector.(type) {
	case *prometheus.CounterVec, *metrics.CounterVec, *metrics.Counter:
		return "counter", nil
	case *prometheus.GaugeVec:
		return "gauge", nil
	case *prometheus.HistogramVec, *metrics.HistogramVec:
		return "histogram", nil
	case prometheus.Metric:
		value := &dto.Metric{}
		if err := c.Write(value); err != nil {
			return "", err
		}
		switch {
		case value.Counter != nil:
			return "counter", nil
		case value.Gauge != nil:
			return "gauge", nil
		case value.Histogram != nil:
			return "histogram", nil
		}
	}
	return "", fmt.Errorf("a %T is of no known type", collector)
}

// A description can only be printed. Its unit is given since client_golang 1.24.
var description = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "(?:[^"\\]|\\.)*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func familyOf(printed string) (*family, error) {
	parts := description.FindStringSubmatch(printed)
	if parts == nil {
		return nil, fmt.Errorf("cannot read the description %s", printed)
	}
	name, err := strconv.Unquote(parts[1])
	if err != nil {
		return nil, err
	}
	help, err := strconv.Unquote(parts[2])
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, label := range slices.Concat(strings.Split(parts[3], ","), strings.Split(parts[4], ",")) {
		if key, _, _ := strings.Cut(label, "="); key != "" {
			labels = append(labels, key)
		}
	}
	return &family{name: name, help: strings.TrimPrefix(help, "[ALPHA] "), labels: labels}, nil
}
