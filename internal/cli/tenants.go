package cli

import (
	"context"
	"io"
	"strconv"

	"github.com/sendgate/sendgate/api"
)

type tenantsCmd struct {
	List   tenantsListCmd   `cmd:"" help:"List tenants with their weights." example:"tenants list"`
	Create tenantsCreateCmd `cmd:"" help:"Create a tenant." detail:"A tenant has its own keys, messages, suppressions and webhooks." example:"tenants create shop-b --weight 50"`
	Set    tenantsSetCmd    `cmd:"" help:"Change a tenant's weight." example:"tenants set shop-b --weight 200"`
	Pause  tenantsPauseCmd  `cmd:"" help:"Accept no more mail of a tenant. Messages that were accepted are sent." example:"tenants pause shop-b"`
	Resume tenantsResumeCmd `cmd:"" help:"Accept mail of a tenant again." example:"tenants resume shop-b"`
}

func tenantRows(w io.Writer, tenants ...api.Tenant) {
	head(w, "TENANT", "WEIGHT", "STATE", "CREATED")
	for _, t := range tenants {
		state := "active"
		if t.Paused {
			state = "paused"
		}
		row(w, t.Name, strconv.Itoa(t.Weight), state, stamp(t.CreatedAt))
	}
}

type tenantsListCmd struct{ format }

// Run implements the command.
func (c *tenantsListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	tenants, err := client.Tenants(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Tenant]{Data: tenants}, func(w io.Writer) { tenantRows(w, tenants...) })
}

type tenantsCreateCmd struct {
	Name   string `arg:"" help:"Name of the tenant."`
	Weight int    `default:"100" help:"Share of the sending capacity while several tenants have waiting mail, 1 to 1000."`
	format
}

// Run implements the command.
func (c *tenantsCreateCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	t, err := client.CreateTenant(ctx, api.TenantRequest{Name: c.Name, Weight: &c.Weight})
	if err != nil {
		return err
	}
	return c.show(s, t, func(w io.Writer) { tenantRows(w, *t) })
}

type tenantsSetCmd struct {
	Name   string `arg:"" help:"Tenant."`
	Weight int    `required:"" help:"Share of the sending capacity while several tenants have waiting mail, 1 to 1000."`
	format
}

// Run implements the command.
func (c *tenantsSetCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	return patchTenant(ctx, s, client, c.format, c.Name, api.TenantRequest{Weight: &c.Weight})
}

type tenantsPauseCmd struct {
	Name string `arg:"" help:"Tenant."`
	format
}

// Run implements the command.
func (c *tenantsPauseCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	paused := true
	return patchTenant(ctx, s, client, c.format, c.Name, api.TenantRequest{Paused: &paused})
}

type tenantsResumeCmd struct {
	Name string `arg:"" help:"Tenant."`
	format
}

// Run implements the command.
func (c *tenantsResumeCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	paused := false
	return patchTenant(ctx, s, client, c.format, c.Name, api.TenantRequest{Paused: &paused})
}

func patchTenant(ctx context.Context, s *Streams, client adminClient, f format, name string, change api.TenantRequest) error {
	t, err := client.PatchTenant(ctx, name, change)
	if err != nil {
		return err
	}
	return f.show(s, t, func(w io.Writer) { tenantRows(w, *t) })
}
