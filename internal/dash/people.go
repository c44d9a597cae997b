package dash

import (
	"net/http"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func listPeople(v *visit) error {
	users, err := v.api.Users(v.r.Context())
	if err != nil {
		return err
	}
	x := struct {
		Users []api.User
		Roles []record.Role
	}{users, record.Roles()}
	return v.show(http.StatusOK, "people", "people", "People", x)
}

// changePerson does what a button of the list says. Each change ends the sessions of the person.
func changePerson(v *visit) error {
	ctx, name := v.r.Context(), v.param("user")
	var change api.UserPatch
	switch v.param("do") {
	case "role":
		role := v.field("role")
		change.Role = &role
	case "disable", "enable":
		off := v.param("do") == "disable"
		change.Disabled = &off
	case "signout":
		if err := v.api.EndUserSessions(ctx, name); err != nil {
			return err
		}
		return v.back("/people", "signed-out")
	default:
		return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: "not_found", Detail: "There is no such action."}
	}
	if _, err := v.api.PatchUser(ctx, name, change); err != nil {
		return err
	}
	return v.back("/people", "person")
}
