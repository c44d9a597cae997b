package cli

import (
	"context"
	"io"
	"strconv"

	"github.com/sendgate/sendgate/api"
)

type tenantsCmd struct {
	List   tenantsListCmd   `cmd:"" help:"List tenants with their weights."`
	Create tenantsCreateCmd `cmd:"" help:"Create a tenant."`
	Set    tenantsSetCmd    `cmd:"" help:"Change a tenant's weight."`
	Pause  tenantsPauseCmd  `cmd:"" help:"Accept no more mail of a tenant. What was accepted is sent."`
	Resume tenantsResumeCmd `cmd:"" help:"Accept mail of a tenant again."`
}

func tenantRows(w io.Writer, tenants ...api.Tenant) {
	row(w, "TENANT", "WEIGHT", "STATE", "CREATED")
	for _, t := range tenants {
		state := "active"
		if t.Paused {
			state = "paused"
		}
		row(w, t.Name, strconv.Itoa(t.Weight), state, stamp(t.CreatedAt))
	}
}

type tenantsListCmd struct{ format }

// Help implements kong.HelpProvider.
func (*tenantsListCmd) Help() string { return "Example:\n\n  sendgate tenants list" }

// Run implements the command.
func (c *tenantsListCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	tenants, err := client.Tenants(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.Tenant]{Data: tenants}, func(w io.Writer) { tenantRows(w, tenants...) })
}

type tenantsCreateCmd struct {
	Name   string `arg:"" help:"Name of the tenant."`
	Weight int    `default:"100" help:"Share of the claims while several tenants wait, 1 to 1000."`
	format
}

// Help implements kong.HelpProvider.
func (*tenantsCreateCmd) Help() string {
	return "A tenant has its own keys, messages, suppressions and webhooks.\n\nExample:\n\n  sendgate tenants create shop-b --weight 50"
}

// Run implements the command.
func (c *tenantsCreateCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	t, err := client.CreateTenant(ctx, api.TenantRequest{Name: c.Name, Weight: &c.Weight})
	if err != nil {
		return err
	}
	return c.show(s, t, func(w io.Writer) { tenantRows(w, *t) })
}

type tenantsSetCmd struct {
	Name   string `arg:"" help:"Tenant."`
	Weight int    `required:"" help:"Share of the claims while several tenants wait, 1 to 1000."`
	format
}

// Help implements kong.HelpProvider.
func (*tenantsSetCmd) Help() string { return "Example:\n\n  sendgate tenants set shop-b --weight 200" }

// Run implements the command.
func (c *tenantsSetCmd) Run(ctx context.Context, s *Streams) error {
	return patchTenant(ctx, s, c.format, c.Name, api.TenantRequest{Weight: &c.Weight})
}

type tenantsPauseCmd struct {
	Name string `arg:"" help:"Tenant."`
	format
}

// Help implements kong.HelpProvider.
func (*tenantsPauseCmd) Help() string { return "Example:\n\n  sendgate tenants pause shop-b" }

// Run implements the command.
func (c *tenantsPauseCmd) Run(ctx context.Context, s *Streams) error {
	paused := true
	return patchTenant(ctx, s, c.format, c.Name, api.TenantRequest{Paused: &paused})
}

type tenantsResumeCmd struct {
	Name string `arg:"" help:"Tenant."`
	format
}

// Help implements kong.HelpProvider.
func (*tenantsResumeCmd) Help() string { return "Example:\n\n  sendgate tenants resume shop-b" }

// Run implements the command.
func (c *tenantsResumeCmd) Run(ctx context.Context, s *Streams) error {
	paused := false
	return patchTenant(ctx, s, c.format, c.Name, api.TenantRequest{Paused: &paused})
}

func patchTenant(ctx context.Context, s *Streams, f format, name string, change api.TenantRequest) error {
	client, err := s.operator()
	if err != nil {
		return err
	}
	t, err := client.PatchTenant(ctx, name, change)
	if err != nil {
		return err
	}
	return f.show(s, t, func(w io.Writer) { tenantRows(w, *t) })
}
