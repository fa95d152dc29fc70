package documents

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/config/load"
	configv1 "github.com/ai-storage/orchestrator/pkg/apis/config/v1"
)

// setting is a row of a table in tuning.md.
type setting struct{ name, fallback, limits, meaning string }

var settingRow = regexp.MustCompile("(?m)^\\| `([a-zA-Z.\\[\\]]+)` \\|([^|]*)\\|([^|]*)\\|([^|]*)\\|$")

// settingsIn reads the tables below a heading of the second level.
func settingsIn(t *testing.T, page, heading string) map[string]setting {
	t.Helper()
	_, below, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("tuning.md has no heading %q", heading)
	}
	if end := strings.Index(below, "\n## "); end >= 0 {
		below = below[:end]
	}
	settings := map[string]setting{}
	for _, row := range settingRow.FindAllStringSubmatch(below, -1) {
		if _, twice := settings[row[1]]; twice {
			t.Errorf("%s is described twice", row[1])
		}
		settings[row[1]] = setting{row[1], row[2], row[3], row[4]}
	}
	return settings
}

// leaves lists the fields of a struct that hold values, by the path under which
// a file has them, with their values. Structs without values are gone into as well.
func leaves(value reflect.Value, path string, found map[string]string) {
	switch value.Interface().(type) {
	case *metav1.Duration, *metav1.LabelSelector, []metav1.LabelSelector, []corev1.ResourceList:
		found[path] = text(value)
		return
	}
	switch value.Kind() {
	case reflect.Pointer:
		if value.Type().Elem().Kind() != reflect.Struct {
			found[path] = text(value)
			return
		}
		if value.IsNil() {
			value = reflect.New(value.Type().Elem())
		}
		leaves(value.Elem(), path, found)
	case reflect.Slice:
		element := reflect.New(value.Type().Elem()).Elem()
		if value.Len() > 0 {
			element = value.Index(0)
		}
		leaves(element, path+"[]", found)
	case reflect.Struct:
		for i := range value.NumField() {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			if name == "" {
				continue // TypeMeta
			}
			leaves(value.Field(i), strings.TrimPrefix(path+"."+name, "."), found)
		}
	default:
		found[path] = text(value)
	}
}

// text is a value as a file has it; "" for none.
func text(value reflect.Value) string {
	if value.Kind() == reflect.Pointer || value.Kind() == reflect.Slice {
		if value.IsNil() {
			return ""
		}
	}
	if duration, ok := value.Interface().(*metav1.Duration); ok {
		return short(duration.Duration)
	}
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	return fmt.Sprint(value.Interface())
}

// short writes 2m0s as 2m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var firstCode = regexp.MustCompile("`([^`]+)`")

// checkSettings compares the rows with the fields of args and their values.
func checkSettings(args any, rows map[string]setting) (problems []string) {
	fields := map[string]string{}
	leaves(reflect.ValueOf(args).Elem(), "", fields)
	for name := range rows {
		if _, exists := fields[name]; !exists {
			problems = append(problems, name+" is described, but there is no such field")
		}
	}
	for name, value := range fields {
		row, described := rows[name]
		if !described {
			problems = append(problems, name+" is not described")
			continue
		}
		stated := ""
		if code := firstCode.FindStringSubmatch(row.fallback); code != nil {
			stated = code[1]
		}
		if stated != value {
			problems = append(problems, fmt.Sprintf("%s: the page says that the default is %q, it is %q", name, stated, value))
		}
		if strings.TrimSpace(row.limits) == "" || len(row.meaning) < 10 {
			problems = append(problems, name+": no unit and range, or no meaning")
		}
	}
	slices.Sort(problems)
	return problems
}

func defaultedRebalanceArgs() *configv1.RebalanceArgs {
	args := &configv1.RebalanceArgs{}
	args.Signals.Prometheus = &configv1.PrometheusArgs{}
	configv1.SetDefaults_RebalanceArgs(args)
	return args
}

func TestEverySettingIsDescribedWithItsDefault(t *testing.T) {
	page := read(t, "docs/tuning.md")
	checkpoint := &configv1.CheckpointVolumeArgs{}
	configv1.SetDefaults_CheckpointVolumeArgs(checkpoint)
	for heading, args := range map[string]any{"Rebalance": defaultedRebalanceArgs(), "CheckpointVolume": checkpoint} {
		for _, problem := range checkSettings(args, settingsIn(t, page, heading)) {
			t.Errorf("%s: %s", heading, problem)
		}
	}
}

func TestTheCheckOfSettingsCanFail(t *testing.T) {
	rows := settingsIn(t, read(t, "docs/tuning.md"), "Rebalance")
	for name, spoil := range map[string]func(map[string]setting){
		"interval is not described":                         func(r map[string]setting) { delete(r, "interval") },
		"invented is described, but there is no such field": func(r map[string]setting) { r["invented"] = setting{"invented", "", "any", "does a lot of good"} },
		`interval: the page says that the default is "31s", it is "30s"`: func(r map[string]setting) {
			r["interval"] = setting{"interval", "`31s`", "any", "time between two cycles"}
		},
		"signals.prometheus.queries.range is not described": func(r map[string]setting) { delete(r, "signals.prometheus.queries.range") },
	} {
		spoiled := maps.Clone(rows)
		spoil(spoiled)
		if problems := checkSettings(defaultedRebalanceArgs(), spoiled); !slices.Equal(problems, []string{name}) {
			t.Errorf("want the problem %q, got %q", name, problems)
		}
	}
}

var (
	between = regexp.MustCompile("`([^`]+)` to `([^`]+)`")
	atLeast = regexp.MustCompile("`([^`]+)` or more")
	atMost  = regexp.MustCompile("`([^`]+)` or less")
	above   = regexp.MustCompile("more than `([^`]+)`")
)

// probes of a range: the values at its ends, and those just outside.
func probes(t *testing.T, limits string) (good, bad []any) {
	t.Helper()
	if m := between.FindStringSubmatch(limits); m != nil {
		return []any{value(t, m[1], 0), value(t, m[2], 0)}, []any{value(t, m[1], -1), value(t, m[2], 1)}
	}
	if m := atLeast.FindStringSubmatch(limits); m != nil {
		return []any{value(t, m[1], 0)}, []any{value(t, m[1], -1)}
	}
	if m := atMost.FindStringSubmatch(limits); m != nil {
		return []any{value(t, m[1], 0)}, []any{value(t, m[1], 1)}
	}
	if m := above.FindStringSubmatch(limits); m != nil {
		return []any{value(t, m[1], 1)}, []any{value(t, m[1], 0)}
	}
	return nil, nil
}

// value is a number or a duration, with so many units more: a second or 1.
func value(t *testing.T, written string, more int64) any {
	t.Helper()
	if n, err := strconv.ParseInt(written, 10, 64); err == nil {
		return n + more
	}
	d, err := time.ParseDuration(written)
	if err != nil {
		t.Fatalf("%q is neither a number nor a duration", written)
	}
	return (d + time.Duration(more)*time.Second).String()
}

// The documented ends of every range are taken, and what is outside is refused
// with the name of the field.
func TestRangesAreThoseThatTheProgramsTake(t *testing.T) {
	page := read(t, "docs/tuning.md")
	checked := 0
	for _, plugin := range []string{"Rebalance", "CheckpointVolume"} {
		for _, row := range settingsIn(t, page, plugin) {
			good, bad := probes(t, row.limits)
			checked += len(good) + len(bad)
			for _, v := range good {
				if err := tryValue(t, plugin, row.name, v); err != nil {
					t.Errorf("%s: %v should be taken: %v", row.name, v, err)
				}
			}
			for _, v := range bad {
				if err := tryValue(t, plugin, row.name, v); err == nil {
					t.Errorf("%s: %v should be refused", row.name, v)
				}
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d values were tried: are the ranges still written as they were?", checked)
	}
}

// tryValue loads a file with one value; only errors that name the field count.
func tryValue(t *testing.T, plugin, path string, v any) error {
	t.Helper()
	_, err := load.Bytes(configurationOf(t, plugin, nested(strings.Split(path, "."), v).(map[string]any)))
	if err != nil && strings.Contains(err.Error(), strings.ReplaceAll(path, "[]", "[0]")+":") {
		return err
	}
	return nil
}

// nested puts a value at a path; lists get one element.
func nested(path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	name, isList := strings.CutSuffix(path[0], "[]")
	inner := nested(path[1:], v)
	if isList {
		inner = []any{inner}
	}
	return map[string]any{name: inner}
}
