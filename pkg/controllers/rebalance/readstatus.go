package rebalance

import (
	"encoding/json"
	"errors"
)

// ReadStatus understands what StatusStore.Published returned. It fails where that is
// not the status of a loop of this version: no JSON, or without a plan.
func ReadStatus(published json.RawMessage) (*Status, error) {
	status := &Status{}
	if err := json.Unmarshal(published, status); err != nil {
		return nil, err
	}
	if status.Plan == nil {
		return nil, errors.New("it has no field plan")
	}
	return status, nil
}
